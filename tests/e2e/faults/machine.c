/* A machine that fails on command, for the tests of the real binary (see machine.rs).
 *
 * Loaded in front of the C library, it stands between a process and the operating system and follows a small block of
 * shared memory that the test writes:
 *
 *   - the wall clock runs so many milliseconds off (the monotonic one is left alone);
 *   - a folder has only so much room left: what would make a file in it longer fails with ENOSPC, while what is there
 *     can be written over, as on a real disk;
 *   - flushing a file whose path contains a given text, or ends in it where the text ends in `$`, fails with EIO;
 *   - what a power cut would leave of database files is kept beside them: a shadow of each that gains what was written
 *     to it only when a flush succeeds. After a flush that failed the kernel takes those pages for clean, so what was
 *     written before is never in the shadow, whatever a later flush says.
 *
 * Nothing of it is part of the product.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define TEXT 1024

/* As machine.rs writes it: numbers first, each of 8 bytes, then texts that end in a zero. */
struct control {
    volatile int64_t clock_offset_ms;
    /* Bytes that files below `full_below` may still grow by; negative: as many as there is room for. */
    volatile int64_t room_bytes;
    /* Flushes of `failing_flush` that succeed before failing ones, and how many fail then. */
    volatile int64_t flushes_before;
    volatile int64_t flushes_failing;
    /* Counted here. */
    volatile int64_t refused_writes;
    volatile int64_t refused_flushes;
    volatile int64_t good_flushes;
    volatile char full_below[TEXT];
    volatile char failing_flush[TEXT];
    /* Folder of the shadows; empty: none are kept. */
    volatile char shadows[TEXT];
};

static struct control *control;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DWELL_TEST_MACHINE");
    if (!path) return;
    int fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) control = mapped;
}

static int path_of(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0 || path[0] != '/') return 0;
    path[length] = 0;
    return 1;
}

/* ---- the clock ---- */

static void move(struct timespec *at, int64_t offset_ms)
{
    at->tv_sec += offset_ms / 1000;
    at->tv_nsec += offset_ms % 1000 * 1000000;
    if (at->tv_nsec >= 1000000000) { at->tv_nsec -= 1000000000; at->tv_sec++; }
    if (at->tv_nsec < 0) { at->tv_nsec += 1000000000; at->tv_sec--; }
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    static __typeof__(&clock_gettime) ask;
    if (!ask) ask = REAL(clock_gettime);
    int outcome = ask(clock, at);
    int64_t offset = control ? control->clock_offset_ms : 0;
    if (outcome == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        move(at, offset);
    }
    return outcome;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

/* The kernel waits by its own clock. librdkafka waits by this one; nobody else by the wall clock. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    static __typeof__(&cnd_timedwait) wait;
    if (!wait) wait = REAL(cnd_timedwait);
    struct timespec moved = *until;
    if (control) move(&moved, -control->clock_offset_ms);
    return wait(condition, mutex, &moved);
}

/* ---- room ---- */

/* How many of `count` bytes at `offset` may be written; -1 when none may. */
static ssize_t room_for(int fd, size_t count, off_t offset)
{
    if (!control || control->room_bytes < 0 || !count) return count;
    char path[PATH_MAX];
    const char *below = (const char *)control->full_below;
    if (!path_of(fd, path) || strncmp(path, below, strlen(below))) return count;
    struct stat is;
    if (fstat(fd, &is) || !S_ISREG(is.st_mode)) return count;
    off_t grows = offset + (off_t)count - is.st_size;
    if (grows <= 0) return count;
    pthread_mutex_lock(&lock);
    int64_t room = control->room_bytes;
    ssize_t allowed = count;
    if (grows > room) {
        /* As much as fits, as the system does; then nothing. */
        allowed = (ssize_t)count - (ssize_t)(grows - room);
        if (allowed < 0) allowed = 0;
        grows = room;
    }
    control->room_bytes = room - grows;
    if (!allowed) control->refused_writes++;
    pthread_mutex_unlock(&lock);
    if (allowed) return allowed;
    errno = ENOSPC;
    return -1;
}

/* ---- shadows of database files ---- */

struct range { off_t from, to; };
struct file {
    char path[PATH_MAX];
    struct range *ranges;
    size_t count, room;
    off_t cut_to; /* the shortest that it was cut to since the last flush; -1: it was not */
    struct file *next;
};
static struct file *files;

static int ends_in(const char *path, const char *end)
{
    size_t length = strlen(path), of_end = strlen(end);
    return length >= of_end && !strcmp(path + length - of_end, end);
}

/* With the lock held. */
static struct file *file_of(const char *path)
{
    for (struct file *file = files; file; file = file->next)
        if (!strcmp(file->path, path)) return file;
    struct file *file = calloc(1, sizeof *file);
    snprintf(file->path, sizeof file->path, "%s", path);
    file->cut_to = -1;
    file->next = files;
    files = file;
    return file;
}

static int is_kept(int fd, char *path)
{
    return control && control->shadows[0] && path_of(fd, path) &&
           (ends_in(path, ".db") || ends_in(path, ".db-wal"));
}

static void shadow_of(const char *path, char *shadow)
{
    const char *name = strrchr(path, '/') + 1;
    snprintf(shadow, PATH_MAX, "%s/%s", (const char *)control->shadows, name);
}

static void wrote(int fd, off_t offset, ssize_t count)
{
    char path[PATH_MAX];
    if (count <= 0 || !is_kept(fd, path)) return;
    struct file *file = file_of(path);
    if (file->count && file->ranges[file->count - 1].to == offset) {
        file->ranges[file->count - 1].to = offset + count;
        return;
    }
    if (file->count == file->room) {
        file->room = file->room ? 2 * file->room : 64;
        file->ranges = realloc(file->ranges, file->room * sizeof *file->ranges);
    }
    file->ranges[file->count++] = (struct range){offset, offset + count};
}

static void forget(struct file *file)
{
    file->count = 0;
    file->cut_to = -1;
}

/* What was written since the last flush is on the disk now. */
static void keep(int fd, const char *path)
{
    char shadow[PATH_MAX];
    shadow_of(path, shadow);
    int to = REAL(open)(shadow, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int from = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    struct file *file = file_of(path);
    struct stat is;
    if (to >= 0 && from >= 0 && !fstat(fd, &is)) {
        static __typeof__(&pwrite64) write_at;
        static __typeof__(&ftruncate64) cut;
        if (!write_at) write_at = REAL(pwrite64);
        if (!cut) cut = REAL(ftruncate64);
        if (file->cut_to >= 0) cut(to, file->cut_to);
        static char block[1 << 16];
        for (size_t i = 0; i < file->count; i++)
            for (off_t at = file->ranges[i].from; at < file->ranges[i].to;) {
                size_t want = file->ranges[i].to - at;
                ssize_t got = pread(from, block, want < sizeof block ? want : sizeof block, at);
                if (got <= 0) break;
                if (write_at(to, block, got, at) != got) abort();
                at += got;
            }
        cut(to, is.st_size);
    }
    if (to >= 0) close(to);
    if (from >= 0) close(from);
    forget(file);
}

static int matches(const char *path, const char *text)
{
    size_t length = strlen(text);
    if (!length || text[length - 1] != '$') return length && strstr(path, text);
    size_t of_path = strlen(path);
    return of_path >= length - 1 && !strncmp(path + of_path - (length - 1), text, length - 1);
}

static int flush(int fd, const char *name)
{
    char path[PATH_MAX];
    int (*flush_it)(int) = (int (*)(int))real(name);
    if (!control || !path_of(fd, path)) return flush_it(fd);
    pthread_mutex_lock(&lock);
    const char *failing = (const char *)control->failing_flush;
    int fails = 0;
    if (control->flushes_failing > 0 && matches(path, failing)) {
        if (control->flushes_before > 0) {
            control->flushes_before--;
        } else {
            control->flushes_failing--;
            control->refused_flushes++;
            fails = 1;
        }
    }
    int outcome = 0;
    if (is_kept(fd, path)) {
        /* The shadow is the disk here: nothing is gained by waiting for the real one. */
        if (fails) forget(file_of(path));
        else keep(fd, path);
    } else if (!fails) {
        outcome = flush_it(fd);
    }
    if (!fails) control->good_flushes++;
    pthread_mutex_unlock(&lock);
    if (!fails) return outcome;
    errno = EIO;
    return -1;
}

int fsync(int fd) { return flush(fd, "fsync"); }
int fdatasync(int fd) { return flush(fd, "fdatasync"); }

/* ---- calls that write ---- */

static int is_plain(void) { return !control || (control->room_bytes < 0 && !control->shadows[0]); }

static ssize_t write_at(ssize_t (*write_it)(int, const void *, size_t, off_t), int fd, const void *bytes,
                        size_t count, off_t offset)
{
    if (is_plain()) return write_it(fd, bytes, count, offset);
    ssize_t allowed = room_for(fd, count, offset);
    if (allowed < 0) return -1;
    pthread_mutex_lock(&lock);
    ssize_t written = write_it(fd, bytes, allowed, offset);
    int kept = errno;
    wrote(fd, offset, written);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    static __typeof__(&pwrite) write_it;
    if (!write_it) write_it = REAL(pwrite);
    return write_at(write_it, fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    static __typeof__(&pwrite64) write_it;
    if (!write_it) write_it = REAL(pwrite64);
    return write_at(write_it, fd, bytes, count, offset);
}

/* Where the next plain write goes; -1 where there are no places (sockets, pipes). */
static off_t next_place(int fd)
{
    struct stat is;
    if (fstat(fd, &is) || !S_ISREG(is.st_mode)) return -1;
    return fcntl(fd, F_GETFL) & O_APPEND ? is.st_size : lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    static __typeof__(&write) write_it;
    if (!write_it) write_it = REAL(write);
    off_t offset = is_plain() ? -1 : next_place(fd);
    if (offset < 0) return write_it(fd, bytes, count);
    ssize_t allowed = room_for(fd, count, offset);
    if (allowed < 0) return -1;
    pthread_mutex_lock(&lock);
    ssize_t written = write_it(fd, bytes, allowed);
    int kept = errno;
    wrote(fd, offset, written);
    pthread_mutex_unlock(&lock);
    errno = kept;
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static __typeof__(&writev) write_it;
    if (!write_it) write_it = REAL(writev);
    if (is_plain() || next_place(fd) < 0) return write_it(fd, parts, count);
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t count, unsigned flags)
{
    static __typeof__(&copy_file_range) copy;
    if (!copy) copy = REAL(copy_file_range);
    if (!is_plain()) {
        off_t offset = to_at ? *to_at : next_place(to);
        ssize_t allowed = offset < 0 ? (ssize_t)count : room_for(to, count, offset);
        if (allowed < 0) return -1;
        count = allowed;
    }
    return copy(from, from_at, to, to_at, count, flags);
}

static int grow(int fd, off_t length)
{
    struct stat is;
    if (is_plain() || fstat(fd, &is) || length <= is.st_size) return 1;
    off_t grows = length - is.st_size;
    return room_for(fd, grows, is.st_size) == grows;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (!grow(fd, offset + length)) { errno = ENOSPC; return -1; }
    return REAL(fallocate)(fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return fallocate(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    return grow(fd, offset + length) ? REAL(posix_fallocate)(fd, offset, length) : ENOSPC;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return posix_fallocate(fd, offset, length);
}

static int cut(int (*cut_it)(int, off_t), int fd, off_t length)
{
    char path[PATH_MAX];
    if (is_plain()) return cut_it(fd, length);
    pthread_mutex_lock(&lock);
    int outcome = cut_it(fd, length), kept = errno;
    if (!outcome && is_kept(fd, path)) {
        struct file *file = file_of(path);
        if (file->cut_to < 0 || length < file->cut_to) file->cut_to = length;
        for (size_t i = 0; i < file->count; i++)
            if (file->ranges[i].to > length) file->ranges[i].to = length;
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
    return outcome;
}

int ftruncate(int fd, off_t length) { return cut(REAL(ftruncate), fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(REAL(ftruncate64), fd, length); }

int unlink(const char *path)
{
    char shadow[PATH_MAX], full[PATH_MAX];
    if (control && control->shadows[0] && (ends_in(path, ".db") || ends_in(path, ".db-wal")) &&
        realpath(path, full)) {
        pthread_mutex_lock(&lock);
        forget(file_of(full));
        shadow_of(full, shadow);
        REAL(unlink)(shadow);
        pthread_mutex_unlock(&lock);
    }
    return REAL(unlink)(path);
}
