/* LeNet-5 trained from C: no Python, no allocation, one call a step.
 *
 * digits.bin holds examples as float[32 * 32] and a label as int32_t, one after the other.
 */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"

enum { BATCH = 64, PIXELS = 32 * 32, MOST = 2000, HELD_OUT = 297 };

static _Alignas(64) char memory[LENET5_MEMORY_BYTES];
static _Alignas(64) char arena[64 << 20];
static float images[MOST][PIXELS];
static int32_t labels[MOST];

static void stop(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

int main(int argc, char **argv) {
    const int epochs = argc > 1 ? atoi(argv[1]) : 12, threads = argc > 2 ? atoi(argv[2]) : 1;
    FILE *file = fopen("weights.bin", "rb");
    if (!file || fread(memory, 1, sizeof memory, file) != sizeof memory) stop("weights.bin?");
    fclose(file);
    int count = 0;
    file = fopen("digits.bin", "rb");
    if (!file) stop("digits.bin?");
    while (count < MOST && fread(images[count], sizeof images[0], 1, file) == 1 &&
           fread(&labels[count], sizeof labels[0], 1, file) == 1)
        count++;
    fclose(file);
    if (lenet5_train_step_arena_bytes(BATCH) > (int64_t)sizeof arena) stop("the arena is small");
    const int train = count - HELD_OUT;
    float loss = 0, accuracy = 0;
    for (int epoch = 0; epoch < epochs; epoch++) {
        for (int at = 0; at + BATCH <= train; at += BATCH)
            if (lenet5_train_step(arena, memory, BATCH, threads, images[at], labels + at, &loss,
                                  &accuracy))
                stop("a label is out of range");
        printf("epoch %d: loss %.4f\n", epoch + 1, loss);
    }
    int right = 0;
    for (int at = train; at < count; at++) {
        float logits[10];
        lenet5_infer(arena, memory, 1, threads, images[at], logits);
        int best = 0;
        for (int k = 1; k < 10; k++)
            if (logits[k] > logits[best]) best = k;
        right += best == labels[at];
    }
    printf("held out: %.1f %% of %d\n", 100.0 * right / HELD_OUT, HELD_OUT);
    return 0;
}
