/* What this machine can do at most: multiply-adds in registers, and bytes from memory. */
static f32 *block;
static long block_size;
volatile f32 sink[MAX_THREADS * 16];

static void multiply(Run *r, int thread) {
    (void)r;
    vf32 a = splat_f32(1.000001f), b = splat_f32(1e-7f);
#define EIGHT(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define NAME(k) vf32 s##k = splat_f32(k), t##k = s##k, u##k = s##k;
#define STEP(k) s##k = s##k * a + b; PIN(s##k);
#define MORE(k) t##k = t##k * a + b; PIN(t##k); u##k = u##k * a + b; PIN(u##k);
#define SUM(k) total += s##k[0] + t##k[0] + u##k[0];
    EIGHT(NAME)
    for (long turn = 0; turn < 2000000; turn++) {
        EIGHT(STEP)
#if L == 16
        EIGHT(MORE)
#endif
    }
    f32 total = 0;
    EIGHT(SUM)
    sink[thread * 16] = total;
}

static void stream(Run *r, int thread) {
    long from = block_size * thread / r->threads / L * L;
    long to = block_size * (thread + 1) / r->threads / L * L;
    f32 total = 0;
#define ZERO(k) vf32 s##k = {0};
#define READ(k) s##k += load_f32(block + i + k * L);
#define ADD(k) total += s##k[0];
    EIGHT(ZERO)
    for (long i = from; i + 8 * L <= to; i += 8 * L) { EIGHT(READ) }
    EIGHT(ADD)
    sink[thread * 16] = total;
}

static long elapsed(void (*body)(Run *, int), int threads) {
    Counter next[1];
    memset(next, 0, sizeof next);
    Run r = {.next = next, .threads = threads, .only = ALL, .body = body};
    long start = nanoseconds();
    run_parallel(&r);
    return nanoseconds() - start;
}

/* nanoseconds for 2000000 · (8 or 24) multiply-adds of L lanes by each thread */
long multiply_time(int threads) { return elapsed(multiply, threads); }

/* nanoseconds for reading that many bytes of a caller's memory */
long stream_time(void *memory, long bytes, int threads) {
    block = memory;
    block_size = bytes / 4;
    return elapsed(stream, threads);
}
