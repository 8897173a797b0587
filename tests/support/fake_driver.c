/* Stands in for libcuda.so.1: memory of the host, launches written to $FAKE_LOG, nothing run.
 *
 * $FAKE_SM is the device's architecture (90), $FAKE_COUNTS how many parameters each kernel has
 * ("name=3 other=4 "), $FAKE_FAIL the function that fails, $FAKE_RESIDENT how many blocks of a
 * kernel fit one of the 7 multiprocessors (2). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(const char *text) {
    FILE *file = fopen(getenv("FAKE_LOG"), "a");
    if (file) fputs(text, file), fclose(file);
}

static int fails(const char *name) {
    const char *wanted = getenv("FAKE_FAIL");
    return wanted && strcmp(wanted, name) == 0 ? 999 : 0;
}

static int architecture(void) {
    const char *given = getenv("FAKE_SM");
    return given ? atoi(given) : 90;
}

int cuInit(unsigned flags) { return (int)flags; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 16: *value = 7; break;                   /* multiprocessors */
    case 75: *value = architecture() / 10; break; /* capability, major */
    case 76: *value = architecture() % 10; break;
    case 95: *value = fails("cooperative") == 0; break;
    default: return 1;
    }
    return device;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &fails, device; }
int cuCtxSetCurrent(void *context) { return context == NULL; }
int cuStreamCreate(void **stream, unsigned flags) { return *stream = &say, flags != 1; }
int cuStreamSynchronize(void *stream) { return stream == NULL; }

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    char line[80];
    char *memory = malloc(bytes);
    memset(memory, 0xA5, bytes); /* what was not set shows */
    *address = (uint64_t)(uintptr_t)memory;
    snprintf(line, sizeof line, "alloc %llu %zu\n", (unsigned long long)*address, bytes);
    say(line);
    return fails("cuMemAlloc_v2");
}
int cuMemFree_v2(uint64_t address) { return free((void *)(uintptr_t)address), 0; }
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t count, void *stream) {
    memset((void *)(uintptr_t)address, value, count);
    return stream == NULL;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t count, void *stream) {
    memcpy((void *)(uintptr_t)to, from, count);
    return stream == NULL;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t count, void *stream) {
    memcpy(to, (const void *)(uintptr_t)from, count);
    return stream == NULL;
}

int cuModuleLoadData(void **module, const void *image) {
    *module = &fails;
    return memcmp(image, "\177ELF", 4) ? 200 : fails("cuModuleLoadData");
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    size_t size = strlen(name) + 1;
    *function = memcpy(malloc(size), name, size);
    return module == NULL;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    return function == NULL || attribute != 8 || value <= 48 * 1024;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads,
                                                size_t shared) {
    const char *given = getenv("FAKE_RESIDENT");
    *blocks = given ? atoi(given) : 2;
    return function == NULL || threads % 32 || shared > 232448;
}

static int capturing;
int cuStreamBeginCapture_v2(void *stream, int mode) {
    capturing++;
    return stream == NULL || mode != 1;
}
int cuStreamEndCapture(void *stream, void **graph) {
    capturing--;
    return *graph = stream, 0;
}
int cuGraphInstantiateWithFlags(void **runnable, void *graph, unsigned long long flags) {
    return *runnable = graph, flags != 0;
}
int cuGraphLaunch(void *runnable, void *stream) {
    say("graph\n");
    return runnable == NULL || stream == NULL;
}

static int launched(const char *kind, void *function, unsigned gx, unsigned bx, unsigned shared,
                    void **parameters) {
    const char *counts = getenv("FAKE_COUNTS");
    char line[4096], key[256];
    snprintf(key, sizeof key, "%s=", (const char *)function);
    const char *found = counts ? strstr(counts, key) : NULL;
    int count = found ? atoi(found + strlen(key)) : 0;
    int used = snprintf(line, sizeof line, "%s %s %u %u %u", kind, (const char *)function, gx, bx, shared);
    for (int k = 0; k < count; k++) /* sizes have 32 bits, pointers 64: both are read as they are */
        used += snprintf(line + used, sizeof line - (size_t)used, " %llu",
                         (unsigned long long)*(const uint64_t *)parameters[k]);
    say(strcat(line, "\n"));
    return capturing != 1; /* all of them become part of a graph */
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **parameters, void **extra) {
    return gy != 1 || gz != 1 || by != 1 || bz != 1 || stream == NULL || extra != NULL ||
           launched("launch", function, gx, bx, shared, parameters);
}
int cuLaunchCooperativeKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                              unsigned by, unsigned bz, unsigned shared, void *stream,
                              void **parameters) {
    return gy != 1 || gz != 1 || by != 1 || bz != 1 || stream == NULL ||
           launched("cooperative", function, gx, bx, shared, parameters);
}
