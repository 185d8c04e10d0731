/* Mapped files and folders that appear at once. See em_file.h. */
#define _GNU_SOURCE /* renameat2 */
#include "io/em_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

em_status_t em_mapped_open(em_mapped_t *map, const char *path, em_error_t *err)
{
    map->data = NULL;
    map->num_bytes = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    EM_RETURN_ERROR_IF(fd < 0, err, EM_ERR_FIELD, "%s: cannot open: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return EM_FAIL(err, EM_ERR_FIELD, "%s: not a regular file", path);
    }
    if (info.st_size > 0) {
        void *const data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            const int reason = errno;
            close(fd);
            return EM_FAIL(err, EM_ERR_IO, "%s: cannot map: %s", path, strerror(reason));
        }
        map->data = data;
        map->num_bytes = (uint64_t)info.st_size;
    }
    close(fd);
    return EM_OK;
}

void em_mapped_close(em_mapped_t *map)
{
    if (map->data != NULL) {
        /* munmap takes what mmap gave; the mapping itself was read-only. */
        (void)munmap((void *)(uintptr_t)map->data, (size_t)map->num_bytes);
    }
    map->data = NULL;
    map->num_bytes = 0;
}

em_status_t em_path_join(char path[EM_PATH_BYTES], const char *folder, const char *name,
                         em_error_t *err)
{
    const int num = snprintf(path, EM_PATH_BYTES, "%s/%s", folder, name);
    EM_RETURN_ERROR_IF(num < 0 || num >= EM_PATH_BYTES, err, EM_ERR_ARGUMENT,
                       "%.64s..: the path is longer than %d bytes", folder, EM_PATH_BYTES - 1);
    return EM_OK;
}

bool em_is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

static em_status_t close_stream(FILE *stream, const char *path, bool sync, em_error_t *err)
{
    errno = 0;
    const bool failed =
        ferror(stream) != 0 || fflush(stream) != 0 || (sync && fsync(fileno(stream)) != 0);
    const int reason = errno;
    const bool not_closed = fclose(stream) != 0;
    /* A write that failed before left its mark in the stream, and no reason. */
    EM_RETURN_ERROR_IF(failed && reason == 0, err, EM_ERR_IO,
                       "%s: cannot write: an earlier write failed (is the disk full?)", path);
    EM_RETURN_ERROR_IF(failed || not_closed, err, EM_ERR_IO, "%s: cannot write: %s", path,
                       strerror(failed ? reason : errno));
    return EM_OK;
}

em_status_t em_file_close(FILE *stream, const char *path, em_error_t *err)
{
    return close_stream(stream, path, false, err);
}

em_status_t em_file_finish(FILE *stream, const char *path, em_error_t *err)
{
    return close_stream(stream, path, true, err);
}

/* Remove a folder and the files in it; folders inside it are not ours and make it stay. */
static void remove_folder(const char *path)
{
    DIR *const folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    closedir(folder);
    (void)rmdir(path);
}

/* Remove the files of `path` whose names stand in `other` too, and the folder if that empties it.
 */
static void remove_shared(const char *path, const char *other)
{
    DIR *const folder = opendir(path);
    DIR *const names = opendir(other);
    if (folder != NULL && names != NULL) {
        for (const struct dirent *entry = readdir(names); entry != NULL; entry = readdir(names)) {
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                (void)unlinkat(dirfd(folder), entry->d_name, 0);
            }
        }
    }
    if (names != NULL) {
        closedir(names);
    }
    if (folder != NULL) {
        closedir(folder);
    }
    (void)rmdir(path);
}

static bool is_one_of(const char *name, const char *const *names, uint32_t num_names)
{
    bool found = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    for (uint32_t i = 0; i < num_names && !found; i++) {
        found = strcmp(name, names[i]) == 0;
    }
    return found;
}

static em_status_t check_entries(const char *path, const char *const *names, uint32_t num_names,
                                 em_error_t *err)
{
    DIR *const folder = opendir(path);
    EM_RETURN_ERROR_IF(folder == NULL && errno != ENOENT, err, EM_ERR_IO,
                       "%s: cannot be replaced by a folder: %s", path, strerror(errno));
    em_status_t status = EM_OK;
    for (const struct dirent *entry = folder == NULL ? NULL : readdir(folder);
         entry != NULL && status == EM_OK; entry = readdir(folder)) {
        if (!is_one_of(entry->d_name, names, num_names)) {
            status = EM_FAIL(err, EM_ERR_IO, "%s: holds %s, which is not ours to replace", path,
                             entry->d_name);
            em_hint(err, "name a new folder, or one that holds a checkpoint alone");
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return status;
}

em_status_t em_folder_check(const char *path, const char *const *names, uint32_t num_names,
                            em_error_t *err)
{
    char temporary[EM_PATH_BYTES];
    EM_RETURN_IF_ERROR(check_entries(path, names, num_names, err));
    EM_RETURN_IF_ERROR(em_folder_begin(path, temporary, err));
    em_folder_discard(temporary);
    return EM_OK;
}

static void sync_folder(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

static void sync_parent(const char *path)
{
    char parent[EM_PATH_BYTES];
    const char *const slash = strrchr(path, '/');
    if (slash == NULL) {
        sync_folder(".");
    } else if (slash == path) {
        sync_folder("/");
    } else {
        memcpy(parent, path, (size_t)(slash - path));
        parent[slash - path] = '\0';
        sync_folder(parent);
    }
}

em_status_t em_folder_begin(const char *path, char temporary[EM_PATH_BYTES], em_error_t *err)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        length--;
    }
    const int num =
        snprintf(temporary, EM_PATH_BYTES, "%.*s.tmp-%ld", (int)length, path, (long)getpid());
    EM_RETURN_ERROR_IF(length >= EM_PATH_BYTES || num < 0 || num >= EM_PATH_BYTES, err,
                       EM_ERR_ARGUMENT, "%.64s..: the path is longer than %d bytes", path,
                       EM_PATH_BYTES - 1);
    remove_folder(temporary);
    EM_RETURN_ERROR_IF(mkdir(temporary, 0777) != 0, err, EM_ERR_IO, "%s: cannot make: %s",
                       temporary, strerror(errno));
    return EM_OK;
}

/* Put `temporary` in the place of an existing `path`; `old` is where that one then is. */
static int swap_in(const char *temporary, const char *path, char old[EM_PATH_BYTES])
{
#if defined(__linux__) && defined(SYS_renameat2)
    enum { EXCHANGE = 1 << 1 }; /* RENAME_EXCHANGE */
    if (syscall(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, path, EXCHANGE) == 0) {
        (void)snprintf(old, EM_PATH_BYTES, "%s", temporary);
        return 0;
    }
#endif
    const int num = snprintf(old, EM_PATH_BYTES, "%s-old", temporary);
    if (num < 0 || num >= EM_PATH_BYTES) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return rename(path, old) == 0 ? rename(temporary, path) : -1;
}

em_status_t em_folder_commit(const char *temporary, const char *path, em_error_t *err)
{
    sync_folder(temporary);
    /* An empty folder gives way to a rename; a full one is swapped out. */
    if (rename(temporary, path) != 0) {
        EM_RETURN_ERROR_IF(errno != ENOTEMPTY && errno != EEXIST, err, EM_ERR_IO,
                           "%s: cannot put the new folder there: %s", path, strerror(errno));
        char old[EM_PATH_BYTES];
        EM_RETURN_ERROR_IF(swap_in(temporary, path, old) != 0, err, EM_ERR_IO,
                           "%s: cannot replace the older folder: %s", path, strerror(errno));
        remove_shared(old, path);
    }
    sync_parent(path);
    return EM_OK;
}

void em_folder_discard(const char *temporary)
{
    remove_folder(temporary);
}
