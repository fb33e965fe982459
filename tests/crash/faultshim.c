/* Makes chosen system calls fail, for one process: LD_PRELOAD with
 *   FAULT=name:n:errno   the n-th call of fdatasync, fsync, pwritev, rename or ftruncate fails
 *   FAULT_SHORT=percent  so many of all writes are cut short
 *   FAULT_READS=1        each pread fails with EIO
 *   FAULT_DELAY_MS=ms    each fdatasync takes at least so long
 * Only calls on files whose path holds FAULT_PATH are counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int calls;

static int concerns(int fd) {
    char link[64], path[4096];
    const char *wanted = getenv("FAULT_PATH");
    if (!wanted) return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, wanted) != NULL;
}

static int fails(const char *name) {
    const char *fault = getenv("FAULT");
    size_t length = strlen(name);
    if (!fault || strncmp(fault, name, length) || fault[length] != ':') return 0;
    int nth = 0, error = 0;
    sscanf(fault + length + 1, "%d:%d", &nth, &error);
    if (atomic_fetch_add(&calls, 1) + 1 != nth) return 0;
    errno = error;
    return 1;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    if (concerns(fd)) {
        const char *delay = getenv("FAULT_DELAY_MS");
        if (delay) usleep(1000 * atoi(delay));
        if (fails("fdatasync")) return -1;
    }
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    if (concerns(fd) && fails("fsync")) return -1;
    return real(fd);
}

int ftruncate(int fd, off_t size) {
    static int (*real)(int, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "ftruncate");
    if (concerns(fd) && fails("ftruncate")) return -1;
    return real(fd, size);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

ssize_t pread64(int fd, void *buffer, size_t size, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread64");
    if (getenv("FAULT_READS") && concerns(fd)) {
        errno = EIO;
        return -1;
    }
    return real(fd, buffer, size, offset);
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset) { return pread64(fd, buffer, size, offset); }

ssize_t pwritev2(int fd, const struct iovec *vectors, int count, off_t offset, int flags) {
    static ssize_t (*real)(int, const struct iovec *, int, off_t, int);
    if (!real) real = dlsym(RTLD_NEXT, "pwritev2");
    if (concerns(fd)) {
        if (fails("pwritev")) return -1;
        const char *percent = getenv("FAULT_SHORT");
        if (percent && rand() % 100 < atoi(percent) && vectors[0].iov_len > 1) {
            struct iovec first = vectors[0];
            first.iov_len = 1 + rand() % (first.iov_len - 1);
            return real(fd, &first, 1, offset, flags);
        }
    }
    return real(fd, vectors, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *vectors, int count, off_t offset, int flags) {
    return pwritev2(fd, vectors, count, offset, flags);
}

ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset) {
    return pwritev2(fd, vectors, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *vectors, int count, off_t offset) {
    return pwritev2(fd, vectors, count, offset, 0);
}
