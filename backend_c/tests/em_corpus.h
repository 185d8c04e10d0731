/* The shared corpus of plans, for the C tests: files by name, with the verdicts that they must get.
 */
#ifndef EM_CORPUS_H
#define EM_CORPUS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EM_CORPUS EM_SOURCE_DIR "/tests/golden/plans/"

typedef struct {
    char name[200]; /* below the corpus's folder */
    char code[40];
    uint64_t line;
    uint8_t *bytes;
    size_t num_bytes;
} em_case_t;

typedef struct {
    em_case_t *cases;
    size_t num;
} em_corpus_t;

static inline void em_corpus_fail(const char *what)
{
    fprintf(stderr, "corpus: cannot read %s\n", what);
    exit(1);
}

static inline void em_case_read(em_case_t *one)
{
    char path[600];
    (void)snprintf(path, sizeof path, "%s%s", EM_CORPUS, one->name);
    FILE *const file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        em_corpus_fail(path);
        return;
    }
    const long size = ftell(file);
    rewind(file);
    /* Exactly as many bytes as there are: a sanitizer sees each byte read behind them. */
    one->num_bytes = (size_t)size;
    one->bytes = malloc(one->num_bytes > 0 ? one->num_bytes : 1);
    if (one->bytes == NULL || fread(one->bytes, 1, one->num_bytes, file) != one->num_bytes) {
        em_corpus_fail(path);
    }
    (void)fclose(file);
}

/* Rows of verdicts.tsv: file, code, line, and a fragment of the message that only Python's has. */
static inline em_corpus_t em_corpus_read(void)
{
    em_corpus_t corpus = {NULL, 0};
    FILE *const file = fopen(EM_CORPUS "verdicts.tsv", "r");
    char row[1024];
    if (file == NULL || fgets(row, sizeof row, file) == NULL) {
        em_corpus_fail("verdicts.tsv");
        return corpus;
    }
    while (fgets(row, sizeof row, file) != NULL) {
        em_case_t *const bigger = realloc(corpus.cases, (corpus.num + 1) * sizeof *corpus.cases);
        if (bigger == NULL) {
            em_corpus_fail("verdicts.tsv");
            break;
        }
        corpus.cases = bigger;
        em_case_t *const one = &corpus.cases[corpus.num];
        memset(one, 0, sizeof *one);
        unsigned long line = 0;
        if (sscanf(row, "%199[^\t]\t%39[^\t]\t%lu", one->name, one->code, &line) != 3) {
            em_corpus_fail(row);
        }
        one->line = line;
        em_case_read(one);
        corpus.num++;
    }
    (void)fclose(file);
    return corpus;
}

static inline void em_corpus_free(em_corpus_t *corpus)
{
    for (size_t i = 0; i < corpus->num; i++) {
        free(corpus->cases[i].bytes);
    }
    free(corpus->cases);
}

#endif
