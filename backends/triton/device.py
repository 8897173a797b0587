"""The part of a Triton target's ``model.py`` that meets the device.

The text of the classes and functions becomes part of the generated module, beside
``backends.host``; TARGET, KERNELS and COOPERATIVE are written by the printer. Memory of the
program lies on the device; the host sees it through views that are copied in and out whole.

Three devices: ``TorchDevice`` compiles ``kernels.py`` when it runs and needs torch and Triton (or
Triton's interpreter, where TRITON_INTERPRET=1); ``DriverDevice`` starts kernels that were compiled
ahead of time, through the GPU's driver alone; ``NoDevice`` holds weights where nothing can run.
"""

from __future__ import annotations

import contextvars
import ctypes
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..host import _error

#: "", or "cuda" or "hip", the name of the architecture, and its number for CUDA
TARGET: tuple[str, str, int] = ("", "", 0)
#: kernel -> (warps, stages, threads of a block, bytes of shared memory, bytes of scratch memory of
#: a block, file, symbol)
KERNELS: dict[str, tuple[int, int, int, int, int, str, str]] = {}
#: kernels whose programs wait for one another: all of them must run at the same time
COOPERATIVE: tuple[str, ...] = ()
#: what torch is allowed in products and convolutions
TF32: bool = False

__all__ = ["DeviceMemory", "DeviceView", "DriverDevice", "LibraryFunction", "NoDevice",
           "TorchDevice", "device_view", "open_device", "resident", "sequence",
           "start_all"]  # fmt: skip


class DeviceMemory:
    """Zeroed bytes on the device."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.block = DEVICE.allocate(nbytes)

    def __del__(self) -> None:
        if DEVICE is not None and hasattr(self, "block"):
            DEVICE.release(self.block)


class DeviceView:
    """Elements of device memory, copied in and out whole; strides count elements."""

    def __init__(
        self, memory: DeviceMemory, dtype: str, offset: int, shape: Any, strides: Any = None,
        copies: int = 0, ahead: int = 0,
    ) -> None:  # fmt: skip
        self.memory, self.dtype, self.shape = memory, np.dtype(dtype), tuple(shape)
        size = self.dtype.itemsize
        dense = [1] * len(self.shape)
        for axis in range(len(self.shape) - 2, -1, -1):
            dense[axis] = dense[axis + 1] * self.shape[axis + 1]
        steps = dense if strides is None else strides
        self.steps = tuple(s * size for s in steps)
        if copies:  # of a buffer that each of several steps has, with nothing in between
            self.shape, self.steps = (copies, *self.shape), (ahead, *self.steps)
        ends = [(n - 1) * s for n, s in zip(self.shape, self.steps, strict=True)]
        self.lowest = sum(e for e in ends if e < 0)
        self.nbytes = sum(map(abs, ends)) + size if 0 not in self.shape else 0
        self.offset = offset + self.lowest
        count = 1
        for n in self.shape:
            count *= n
        self.whole = self.nbytes == count * size or copies > 0

    def _over(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        return np.ndarray(self.shape, self.dtype, data, -self.lowest, self.steps)

    def copy(self) -> np.ndarray[Any, Any]:
        """The elements as an array on the host."""
        return self._over(DEVICE.download(self.memory.block, self.offset, self.nbytes)).copy()

    def __setitem__(self, key: object, value: Any) -> None:
        if not self.nbytes:
            return
        data = np.empty(self.nbytes, np.uint8)
        if not self.whole:  # what lies between the elements stays
            data[:] = DEVICE.download(self.memory.block, self.offset, self.nbytes)
        self._over(data)[...] = value
        DEVICE.upload(self.memory.block, self.offset, data)


def device_view(
    memory: DeviceMemory, dtype: str, offset: int, shape: Any, strides: Any = None,
    copies: int = 0, ahead: int = 0,
) -> DeviceView:  # fmt: skip
    """What ``view`` is for memory of the host; ``copies`` of it lie ``ahead`` bytes apart."""
    return DeviceView(memory, dtype, offset, shape, strides, copies, ahead)


def resident(data: np.ndarray[Any, Any]) -> DeviceMemory:
    """A constant of the program as memory of the device."""
    memory = DeviceMemory(data.nbytes)
    DEVICE.upload(memory.block, 0, np.array(data))
    return memory


def sequence(
    launches: Sequence[Any], inputs: dict[str, Any], steps: int = 0
) -> Callable[..., None]:
    """A function that copies its arguments to the ``inputs`` and starts the launches in order.

    A launch is (kernel, programs, pointers, sizes); a pointer is (memory, byte, dtype), or (memory,
    byte, dtype, ahead) into a buffer that each of several steps has, so many bytes apart. Of
    ``steps`` every one has the launches once.
    """
    launches = [
        (name, programs, [(m, at + step * (ahead[0] if ahead else 0), dtype)
                          for m, at, dtype, *ahead in pointers], sizes)
        for step in range(max(steps, 1))
        for name, programs, pointers, sizes in launches
    ]  # fmt: skip
    start = DEVICE.prepare(launches)
    targets = list(inputs.values())

    @np.errstate(all="ignore")  # Triton's interpreter computes with NumPy
    def run(*given: Any) -> None:
        for target, value in zip(targets, given, strict=True):
            target[...] = value
        start()

    # for whoever times the device alone: arguments are there, results stay there
    vars(run).update(start=start, launches=launches, inputs=inputs)
    return run


class NoDevice:
    """Memory of the host: weights can be read and set, nothing can be run."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def allocate(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def release(self, block: Any) -> None:
        """NumPy frees it."""

    def upload(self, block: Any, offset: int, data: np.ndarray[Any, Any]) -> None:
        block[offset : offset + data.nbytes] = data

    def download(self, block: Any, offset: int, nbytes: int) -> np.ndarray[Any, Any]:
        part: np.ndarray[Any, Any] = block[offset : offset + nbytes]
        return part

    def prepare(self, launches: Sequence[Any]) -> Callable[[], None]:
        hint = "compile it for a target that can: numpy, or c with a C compiler"
        raise _error("this program cannot run here", got=self.reason, hint=hint)


class LibraryFunction:
    """A product or convolution by torch, started like a kernel; the last argument is the result.

    The algorithms are those that give the same bits each time.
    """

    def __init__(self, torch: Any, function: str, tf32: bool, settings: dict[str, Any]) -> None:
        self.torch, self.function, self.tf32 = torch, function, tf32
        self.settings = settings

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return self.run

    def run(self, a: Any, b: Any, out: Any) -> None:
        torch, products = self.torch, self.torch.backends.cuda.matmul
        before = products.allow_tf32
        products.allow_tf32 = self.tf32
        try:
            with torch.backends.cudnn.flags(deterministic=True, allow_tf32=self.tf32):
                if self.function == "matmul":
                    torch.bmm(a, b, out=out)
                else:
                    out.copy_(self._convolution(a, b, out))
        finally:
            products.allow_tf32 = before

    def _convolution(self, a: Any, b: Any, out: Any) -> Any:
        how = self.settings
        given = (how["stride"], how["padding"], how["dilation"], False,
                 [0] * len(how["stride"]), how["groups"])  # fmt: skip
        if self.function == "convolution":
            return self.torch.convolution(a, b, None, *given)
        gradient = self.torch.ops.aten.convolution_backward
        if self.function == "input_grad":
            image = a.new_empty(1).expand(out.shape)  # only its shape is looked at
            return gradient(a, image, b, None, *given, [True, False, False])[0]
        weights = a.new_empty(1).expand(out.shape)
        return gradient(b, a, weights, None, *given, [False, True, False])[1]


def start_all(torch: Any, place: str, ready: Sequence[Any]) -> list[Any]:
    """Start launches of Triton or torch, (kernel, grid, arguments, options); what each returns.

    What a kernel writes its descriptors to is torch's memory, part of a graph that is recorded.
    """

    def start() -> list[Any]:
        return [kernel[grid](*arguments, **options) for kernel, grid, arguments, options in ready]

    if place == "cpu":
        return start()
    import triton

    def scratch(size: int, alignment: int, stream: Any) -> Any:
        return torch.empty(size, dtype=torch.uint8, device=place)

    ours = contextvars.copy_context()  # the caller's own allocator stays
    ours.run(triton.set_allocator, scratch)
    return ours.run(start)


class TorchDevice:
    """Kernels compiled by Triton when they are first run; memory of torch's."""

    reason = ""

    def __init__(self, place: str) -> None:
        import torch

        self.torch, self.place = torch, place
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernels.py")
        spec = importlib.util.spec_from_file_location(f"{__name__}_kernels", path)
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def allocate(self, nbytes: int) -> Any:
        # a multiple of the largest element, so that all of it can be seen as any dtype
        return self.torch.zeros(nbytes + -nbytes % 8, dtype=self.torch.uint8, device=self.place)

    def release(self, block: Any) -> None:
        """Torch frees it."""

    def upload(self, block: Any, offset: int, data: np.ndarray[Any, Any]) -> None:
        block[offset : offset + data.nbytes].copy_(self.torch.from_numpy(data))

    def download(self, block: Any, offset: int, nbytes: int) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = block[offset : offset + nbytes].cpu().numpy()
        return found

    def prepare(self, launches: Sequence[Any]) -> Callable[[], None]:
        ready = [self._ready(launch) for launch in launches]

        def start() -> None:
            start_all(self.torch, self.place, ready)

        return start if self.place == "cpu" else self._graph(start)

    def _ready(self, launch: Any) -> tuple[Any, tuple[int], list[Any], dict[str, Any]]:
        name, programs, pointers, sizes = launch
        if name.startswith("torch."):
            views = [self.torch.as_strided(self._pointer(*p), *view)
                     for p, view in zip(pointers, sizes, strict=True)]  # fmt: skip
            return LibraryFunction(self.torch, name[6:], TF32, programs), (1,), views, {}
        warps, stages = KERNELS[name][:2]
        arguments = [*(self._pointer(*p) for p in pointers), *sizes]
        options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
        kernel = getattr(self.module, name)
        if name in COOPERATIVE:
            if self.place == "cpu":
                programs = 1  # the interpreter runs one after the other: none may wait for others
            else:
                options["launch_cooperative_grid"] = True
                programs = min(programs, self._resident(kernel, arguments, options))
        return kernel, (programs,), arguments, options

    def _resident(self, kernel: Any, arguments: list[Any], options: dict[str, Any]) -> int:
        """How many programs of a kernel the device runs at the same time."""
        if self.torch.version.hip:
            raise _error("persistent kernels are for CUDA", got="a GPU of AMD",
                         hint="compile for target triton:launches")  # fmt: skip
        compiled = kernel.warmup(*arguments, grid=(1,), **options)
        compiled._init_handles()
        found = ctypes.c_int()
        driver = ctypes.CDLL("libcuda.so.1")
        status = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(
            ctypes.byref(found), ctypes.c_void_p(compiled.function),
            32 * options["num_warps"], ctypes.c_size_t(compiled.metadata.shared),
        )  # fmt: skip
        if status:
            raise _error("the GPU's driver does not tell how many programs fit",
                         got=f"status {status}")  # fmt: skip
        properties = self.torch.cuda.get_device_properties(self.torch.cuda.current_device())
        return max(1, found.value * properties.multi_processor_count)

    def _pointer(self, memory: DeviceMemory, offset: int, dtype: str) -> Any:
        block = memory.block
        kind = self.torch.int8 if dtype == "bool" else getattr(self.torch, dtype)
        end = offset + (len(block) - offset) // kind.itemsize * kind.itemsize
        return block[offset:end].view(kind)

    def _graph(self, start: Callable[[], None]) -> Callable[[], None]:
        """The first call compiles the kernels, the second one records them as one CUDA graph."""
        calls = 0
        graph: Any = None

        def run() -> None:
            nonlocal calls, graph
            calls += 1
            if calls == 1:
                start()
                return
            if graph is None:
                graph = self.torch.cuda.CUDAGraph()
                with self.torch.cuda.graph(graph):
                    start()
            graph.replay()

        return run


class DriverDevice:
    """Kernels that were compiled ahead of time, started through the driver of the GPU."""

    reason = ""

    def __init__(self, api: str, library: Any) -> None:
        self.hip = api == "hip"
        self.library = library
        self.call("Init", 0)
        if self.hip:
            self.call("SetDevice", 0)
        else:
            device, context = ctypes.c_int(), ctypes.c_void_p()
            self.call("DeviceGet", ctypes.byref(device), 0)
            self.call("DevicePrimaryCtxRetain", ctypes.byref(context), device)
            self.call("CtxSetCurrent", context)
        self.stream = ctypes.c_void_p()
        create = "StreamCreateWithFlags" if self.hip else "StreamCreate"
        self.call(create, ctypes.byref(self.stream), 1)  # not waiting for the default stream
        self.functions: dict[str, Any] = {}
        self.processors = 0 if self.hip else self._attribute(16)

    def _attribute(self, number: int) -> int:
        found = ctypes.c_int()
        self.call("DeviceGetAttribute", ctypes.byref(found), number, 0)
        return found.value

    def call(self, name: str, *arguments: Any) -> None:
        """One function of the driver by CUDA's name of it. Raises ModelError if it fails."""
        names = {
            "ModuleLoadData": "ModuleLoadData", "MemAlloc": "Malloc", "MemFree": "Free",
            "MemcpyHtoDAsync": "MemcpyHtoDAsync", "MemcpyDtoHAsync": "MemcpyDtoHAsync",
            "MemsetD8Async": "MemsetD8Async", "LaunchKernel": "ModuleLaunchKernel",
        }  # fmt: skip
        versions = {"MemAlloc": "_v2", "MemFree": "_v2", "MemcpyHtoDAsync": "_v2",
                    "MemcpyDtoHAsync": "_v2", "StreamBeginCapture": "_v2",
                    "StreamDestroy": "_v2"}  # fmt: skip
        symbol = f"hip{names.get(name, name)}" if self.hip else f"cu{name}{versions.get(name, '')}"
        status = getattr(self.library, symbol)(*arguments)
        if status:
            raise _error(f"the GPU's driver failed in {symbol}", got=f"status {status}")

    def allocate(self, nbytes: int) -> ctypes.c_uint64:
        block = ctypes.c_uint64()
        self.call("MemAlloc", ctypes.byref(block), ctypes.c_size_t(max(nbytes, 1)))
        self.call("MemsetD8Async", block, ctypes.c_ubyte(0), ctypes.c_size_t(nbytes), self.stream)
        return block

    def release(self, block: ctypes.c_uint64) -> None:
        """Give memory back; the driver waits for what still uses it."""
        self.call("MemFree", block)

    def upload(self, block: ctypes.c_uint64, offset: int, data: np.ndarray[Any, Any]) -> None:
        there, here = ctypes.c_uint64(block.value + offset), ctypes.c_void_p(data.ctypes.data)
        self.call("MemcpyHtoDAsync", there, here, ctypes.c_size_t(data.nbytes), self.stream)
        self.call("StreamSynchronize", self.stream)  # the host's copy may go away

    def download(self, block: ctypes.c_uint64, offset: int, nbytes: int) -> np.ndarray[Any, Any]:
        data = np.empty(nbytes, np.uint8)
        here, there = ctypes.c_void_p(data.ctypes.data), ctypes.c_uint64(block.value + offset)
        if nbytes:
            self.call("MemcpyDtoHAsync", here, there, ctypes.c_size_t(nbytes), self.stream)
        self.call("StreamSynchronize", self.stream)
        return data

    def prepare(self, launches: Sequence[Any]) -> Callable[[], None]:
        """The launches as one graph, recorded now."""
        ready = [self._ready(launch) for launch in launches]
        # where kernels write their descriptors; one runs after the other, so all share it
        most = max((each * programs for _, programs, *_, each, _ in ready), default=0)
        scratch = DeviceMemory(most) if most else None
        graph, runnable = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("StreamBeginCapture", self.stream, 1)
        for function, programs, threads, shared, cooperative, parameters, each, values in ready:
            if each and scratch is not None:
                values[-2].value = scratch.block.value
            given = (function, programs, 1, 1, threads, 1, 1, shared, self.stream, parameters)
            if cooperative:
                self.call("LaunchCooperativeKernel", *given)
            else:
                self.call("LaunchKernel", *given, None)
        self.call("StreamEndCapture", self.stream, ctypes.byref(graph))
        self.call("GraphInstantiateWithFlags", ctypes.byref(runnable), graph, ctypes.c_uint64(0))

        def start(scratch: Any = scratch) -> None:  # kept as long as it may be started
            self.call("GraphLaunch", runnable, self.stream)

        return start

    def _ready(self, launch: Any) -> Any:
        name, programs, pointers, sizes = launch
        _, _, threads, shared, scratch, file, symbol = KERNELS[name]
        values: list[Any] = [ctypes.c_uint64(m.block.value + offset) for m, offset, _ in pointers]
        values += [ctypes.c_int32(size) for size in sizes]
        values += [ctypes.c_uint64(0), ctypes.c_uint64(0)]  # scratch memory, the profiler's
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        function = self._function(file, symbol, shared)
        cooperative = name in COOPERATIVE
        if cooperative:
            programs = min(programs, self._resident(function, threads, shared))
        return function, programs, threads, shared, cooperative, addresses, scratch, values

    def _resident(self, function: Any, threads: int, shared: int) -> int:
        """How many programs of a kernel the device runs at the same time."""
        if not self._attribute(95):
            raise _error("this GPU cannot start programs that wait for one another",
                         hint="compile with option launches")  # fmt: skip
        found = ctypes.c_int()
        self.call("OccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(found), function,
                  threads, ctypes.c_size_t(shared))  # fmt: skip
        if not found.value:
            raise _error("the kernel does not fit this GPU",
                         got=f"{threads} threads, {shared} bytes of shared memory")  # fmt: skip
        return found.value * self.processors

    def _function(self, file: str, symbol: str, shared: int) -> Any:
        if file not in self.functions:
            path = os.path.join(os.path.dirname(os.path.abspath(__file__)), file)
            try:
                with open(path, "rb") as opened:
                    image = opened.read()
            except OSError as error:
                raise _error(f"{path} cannot be read", got=error) from None
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            self.call("ModuleLoadData", ctypes.byref(module), image)
            self.call("ModuleGetFunction", ctypes.byref(function), module, symbol.encode())
            if shared > 48 * 1024 and not self.hip:
                self.call("FuncSetAttribute", function, 8, shared)  # largest dynamic shared memory
            self.functions[file] = function
        return self.functions[file]


def open_device() -> Any:
    """The device that this program runs on, or a ``NoDevice`` that says why there is none."""
    api, architecture, number = TARGET
    if api:
        name = "libcuda.so.1" if api == "cuda" else "libamdhip64.so"
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return NoDevice(f"no driver of a GPU ({name})")
        if api == "cuda":
            count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
            if (
                library.cuInit(0)
                or library.cuDeviceGetCount(ctypes.byref(count))
                or not count.value
            ):
                return NoDevice("no GPU")
            library.cuDeviceGetAttribute(ctypes.byref(major), 75, 0)
            library.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
            found = 10 * major.value + minor.value
            # binaries of 8.0 run on 8.6 and 8.9 too; those of 9.0 run on 9.0 alone
            if found // 10 != number // 10 or found < number:
                return NoDevice(f"a GPU of sm_{found}, compiled for {architecture}")
        return DriverDevice(api, library)
    missing = [n for n in ("torch", "triton") if importlib.util.find_spec(n) is None]
    if missing:
        return NoDevice(f"no {' and no '.join(missing)}")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return TorchDevice("cpu")
    import torch

    if not torch.cuda.is_available():
        return NoDevice("no GPU; TRITON_INTERPRET=1 runs small programs without one")
    return TorchDevice("cuda")


DEVICE: Any = None
