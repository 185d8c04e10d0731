/*
 * Files: whole ones mapped for reading, new ones that appear complete or not at all.
 */
#ifndef EM_FILE_H
#define EM_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "exactmap/error.h"

enum { EM_PATH_BYTES = 4096 };

/* A file in memory, read-only; data is NULL if it is empty. */
typedef struct {
    const uint8_t *data;
    uint64_t num_bytes;
} em_mapped_t;

em_status_t em_mapped_open(em_mapped_t *map, const char *path, em_error_t *err);
void em_mapped_close(em_mapped_t *map);

/* "folder/name" into `path`; fails if it does not fit. */
em_status_t em_path_join(char path[EM_PATH_BYTES], const char *folder, const char *name,
                         em_error_t *err);

/* Whether something that is no regular file stands there (a pipe, a terminal): such an output is
 * written directly, never renamed over. */
bool em_is_special(const char *path);

/* Close a stream; reports any write that failed before. em_file_finish flushes it to the disk. */
em_status_t em_file_close(FILE *stream, const char *path, em_error_t *err);
em_status_t em_file_finish(FILE *stream, const char *path, em_error_t *err);

/*
 * A folder that appears under its name all at once. begin makes `<path>.tmp-<pid>`, whose name is
 * left in `temporary`; commit flushes it and puts it in the place of `path` in one step. A folder
 * that was there is swapped out, and of its files those that the new one has too are removed: what
 * is not ours is never deleted. discard removes what begin made.
 *
 * check says beforehand whether begin and commit will do: the place can be written, and holds
 * nothing, or a folder with none but the files of `names`.
 */
em_status_t em_folder_check(const char *path, const char *const *names, uint32_t num_names,
                            em_error_t *err);
em_status_t em_folder_begin(const char *path, char temporary[EM_PATH_BYTES], em_error_t *err);
em_status_t em_folder_commit(const char *temporary, const char *path, em_error_t *err);
void em_folder_discard(const char *temporary);

#endif
