/* Load for a backend: many edges over real WebSockets, from one thread, cheap beside the server it loads.
 *
 *   generator MODE [name=value ...]
 *
 *   ingest   every edge sends `messages` data messages of `values` values as fast as they are taken, at most `seconds`
 *   hold     every edge sends one message of `values` changed values a second, spread over the second, for `seconds`;
 *            a snapshot of `snapshot` values first, and 300 s after the edge's own start: the fleet is one that was
 *            started over the last `spread` seconds (0: all at once, as after a restart of the backend).
 *            `_sum/BenchSentAt` is the wall clock in microseconds.
 *            reconnect=1: an edge that lost its connection tries again each second, and sends only while it has one;
 *            a snapshot first, the next 300 s later. The figures say how many messages have a time in each second
 *            (epoch) since the first one. A byte on stdin ends it before its time. It sleeps a millisecond at a time
 *            then: databases need the processor.
 *            churn=N, with reconnect: N edges a second, in turn, end their connection: orderly, by TCP alone, by RST
 *   idle     connect and stay silent for `seconds`
 *   storm    all edges connect at once; ends when each got the answer to a request, or after `seconds`. greet=1: each
 *            sends a snapshot first, as real edges do. stay=1: they stay until a line on stdin, after the figures
 *
 *   port, host=127.0.0.1, edges, first=0, key=apikey%d (of the edge's number), values, messages, seconds, snapshot,
 *   reconnect, spread=300, churn, greet, stay, wait=1: when all are connected (storm: before) say "ready" and begin after a
 *   line on stdin.
 *
 * ingest and storm end with one request for each edge; its answer (an error will do) proves that all before it was
 * worked off. The last line of output is a JSON object. Frames are made once; time stamps are written into the masked
 * bytes. Exit code 0 also if edges failed: the figures say so.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, SHAKING, OPEN, CLOSED };
enum { SNAPSHOT_EVERY = 300 }; /* seconds */
enum { VARIANTS = 16, CONNECT_AT_ONCE = 100, BURST = 4, IN = 1024, MAX_EDGES = 100000, MAX_PENDING = 1 << 20, MAX_SECONDS = 86400 };

/* A masked text frame; `time_at` and `sent_at` are where digits go, counted in the payload (-1: nowhere). */
struct frame {
    unsigned char *bytes;
    int length, head, time_at, sent_at;
    unsigned char mask[4];
};

struct edge {
    int fd, state, number, sent, in_length, probed, answered;
    int next_full; /* second of the run from which on its next message is a snapshot */
    unsigned events;
    unsigned char *out; /* what the socket has not taken yet */
    int out_length, out_at, out_size;
    int64_t last_ms; /* no two messages of an edge have one time: history would keep one of them */
    int64_t skip; /* bytes of a server's frame still to be passed over */
    int skip_is_text;
    unsigned char in[IN];
};

static const char *mode, *host = "127.0.0.1", *key = "apikey%d";
static int port = 8081, count = 100, first, values = 120, messages = 1000, snapshot = 700, wait_for_go, reconnect;
static int spread = SNAPSHOT_EVERY, churn, greet, stay, churned;
static int64_t snapshots;
static double most_behind;
static double seconds = 5;
static struct edge *edges;
static struct frame data[VARIANTS], snap, probe_frame;
static int poller, in_flight, opened, failed, closed_early, answered, finishing;
static int64_t sent_messages, sent_bytes, pushed_back, received, reconnected, first_second;
static int sent_in[MAX_SECONDS], last_second = -1;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int64_t wall_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what) {
    fprintf(stderr, "generator: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct frame make_frame(const char *text, int length, int time_at, int sent_at) {
    struct frame f = {.time_at = time_at, .sent_at = sent_at};
    f.bytes = malloc(length + 14);
    f.bytes[0] = 0x81;
    if (length < 126) {
        f.bytes[1] = 0x80 | length;
        f.head = 2;
    } else if (length < 65536) {
        f.bytes[1] = 0x80 | 126;
        f.bytes[2] = length >> 8;
        f.bytes[3] = length;
        f.head = 4;
    } else {
        f.bytes[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) f.bytes[2 + i] = (uint64_t)length >> (56 - 8 * i);
        f.head = 10;
    }
    for (int i = 0; i < 4; i++) f.bytes[f.head + i] = f.mask[i] = 1 + rand() % 255;
    f.head += 4;
    for (int i = 0; i < length; i++) f.bytes[f.head + i] = text[i] ^ f.mask[i & 3];
    f.length = f.head + length;
    return f;
}

static void put_number(struct frame *f, unsigned char *copy, int at, int digits, int64_t number) {
    for (int i = digits - 1; i >= 0; i--, number /= 10)
        copy[f->head + at + i] = (unsigned char)('0' + number % 10) ^ f->mask[(at + i) & 3];
}

/* `n` values in components of 20 channels, the kind of numbers an edge has. */
static struct frame make_data(int n, int with_sent_at) {
    char *text = malloc(200 + (size_t)n * 64);
    int at = sprintf(text, "{\"jsonrpc\":\"2.0\",\"method\":\"timestampedData\",\"params\":{\"");
    int time_at = at, sent_at = -1;
    at += sprintf(text + at, "0000000000000\":{");
    if (with_sent_at) {
        at += sprintf(text + at, "\"_sum/BenchSentAt\":");
        sent_at = at;
        at += sprintf(text + at, "0000000000000000");
        n--;
    }
    for (int i = 0; i < n; i++) {
        at += sprintf(text + at, "%s\"meter%d/BenchChannel%d\":", i || with_sent_at ? "," : "", i / 20, i % 20);
        at += i % 10 == 9 ? sprintf(text + at, "%d.%d", rand() % 500, 1 + rand() % 9)
                          : sprintf(text + at, "%d", rand() % 20000 - 10000);
    }
    at += sprintf(text + at, "}}}");
    struct frame f = make_frame(text, at, time_at, sent_at);
    free(text);
    return f;
}

static void watch(struct edge *e, unsigned wanted) {
    if (e->events == wanted) return;
    struct epoll_event event = {.events = wanted, .data.ptr = e};
    if (epoll_ctl(poller, e->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, e->fd, &event)) die("epoll_ctl");
    e->events = wanted;
}

static void end(struct edge *e) {
    if (e->state == CLOSED) return;
    if (e->state == OPEN) {
        closed_early++;
        opened--;
    } else {
        failed++;
        in_flight--;
    }
    if (e->answered) answered--;
    e->state = CLOSED;
    close(e->fd);
    free(e->out);
    e->out = NULL;
    e->out_length = e->out_at = e->out_size = 0;
}

static void start_connecting(struct edge *e) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    e->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (e->fd < 0) die("socket");
    int one = 1, size = 65536;
    setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(e->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    e->state = CONNECTING;
    e->events = 0;
    e->in_length = e->skip = 0;
    in_flight++;
    if (connect(e->fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS) {
        end(e);
        return;
    }
    watch(e, EPOLLOUT);
}

/* What the socket does not take is kept and goes first the next time. False: the edge is gone. */
static int put(struct edge *e, const unsigned char *bytes, int length) {
    int taken = 0;
    if (!e->out_length) {
        taken = send(e->fd, bytes, length, MSG_NOSIGNAL);
        if (taken < 0) {
            if (errno != EAGAIN) {
                end(e);
                return 0;
            }
            taken = 0;
        }
    }
    sent_bytes += length;
    if (taken == length) return 1;
    int left = length - taken, used = e->out_at + e->out_length;
    if (used + left > MAX_PENDING) { /* the server does not read: this edge gives up */
        end(e);
        return 0;
    }
    if (used + left > e->out_size) {
        e->out_size = used + left;
        e->out = realloc(e->out, e->out_size);
        if (!e->out) die("memory");
    }
    memcpy(e->out + used, bytes + taken, left);
    e->out_length += left;
    pushed_back++;
    watch(e, EPOLLIN | EPOLLOUT);
    return 1;
}

static int flush(struct edge *e) {
    if (!e->out_length) return 1;
    int taken = send(e->fd, e->out + e->out_at, e->out_length, MSG_NOSIGNAL);
    if (taken < 0) {
        if (errno != EAGAIN) end(e);
        return 0;
    }
    e->out_at += taken;
    e->out_length -= taken;
    if (e->out_length) return 0;
    e->out_at = 0;
    return 1;
}

static unsigned char *scratch;

static int send_frame(struct edge *e, struct frame *f) {
    memcpy(scratch, f->bytes, f->length);
    int64_t us = wall_us();
    if (f->time_at >= 0) {
        e->last_ms = us / 1000 > e->last_ms ? us / 1000 : e->last_ms + 1;
        put_number(f, scratch, f->time_at, 13, e->last_ms);
    }
    if (f->sent_at >= 0) put_number(f, scratch, f->sent_at, 16, us);
    return put(e, scratch, f->length);
}

static void send_data(struct edge *e, struct frame *f) {
    if (send_frame(e, f)) {
        e->sent++;
        sent_messages++;
        int64_t second = e->last_ms / 1000;
        if (!first_second) first_second = second;
        int at = (int)(second - first_second);
        if (at < 0 || at >= MAX_SECONDS) at = at < 0 ? 0 : MAX_SECONDS - 1;
        sent_in[at]++;
        if (at > last_second) last_second = at;
    }
}

static void send_probe(struct edge *e) {
    e->probed = 1;
    send_frame(e, &probe_frame);
}

static void pump(struct edge *e) { /* ingest: as much as is taken, a few messages a turn */
    if (!flush(e)) return;
    for (int i = 0; i < BURST && e->state == OPEN && !e->out_length && !finishing && e->sent < messages; i++)
        send_data(e, &data[(e->sent + e->number) % VARIANTS]);
    if (e->state != OPEN || e->out_length) return;
    if (finishing || e->sent >= messages) {
        if (!e->probed) send_probe(e);
        if (e->state == OPEN && !e->out_length) watch(e, EPOLLIN);
    }
}

static void answer(struct edge *e) {
    received++;
    if (e->probed && !e->answered) {
        e->answered = 1;
        answered++;
    }
}

static void frames_in(struct edge *e) { /* takes whole frames out of e->in */
    int at = 0;
    while (e->state == OPEN) {
        if (e->skip) {
            int part = e->in_length - at < e->skip ? e->in_length - at : (int)e->skip;
            at += part;
            e->skip -= part;
            if (e->skip) break;
            if (e->skip_is_text) answer(e);
            continue;
        }
        int left = e->in_length - at;
        unsigned char *b = e->in + at;
        if (left < 2) break;
        int head = b[1] == 126 ? 4 : b[1] == 127 ? 10 : 2;
        if (left < head) break;
        uint64_t length = b[1];
        if (head > 2) {
            length = 0;
            for (int i = 2; i < head; i++) length = length << 8 | b[i];
        }
        int opcode = b[0] & 15;
        if (opcode == 8) {
            end(e);
            return;
        }
        if (opcode == 9) {
            if (length > 125 || left < head + (int)length) break;
            unsigned char pong[140] = {0x8a, 0x80 | length, 0, 0, 0, 0};
            memcpy(pong + 6, b + head, length);
            at += head + length;
            put(e, pong, 6 + length);
            continue;
        }
        at += head;
        e->skip = length;
        e->skip_is_text = opcode < 3 && b[0] & 0x80;
        if (!length && e->skip_is_text) answer(e);
    }
    if (e->state != OPEN) return;
    e->in_length -= at;
    memmove(e->in, e->in + at, e->in_length);
}

static void readable(struct edge *e) {
    int n = recv(e->fd, e->in + e->in_length, IN - e->in_length, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        end(e);
        return;
    }
    if (n < 0) return;
    e->in_length += n;
    if (e->state == SHAKING) {
        unsigned char *stop = memmem(e->in, e->in_length, "\r\n\r\n", 4);
        if (!stop) {
            if (e->in_length == IN) end(e);
            return;
        }
        if (memcmp(e->in, "HTTP/1.1 101", 12)) {
            end(e);
            return;
        }
        e->in_length -= stop + 4 - e->in;
        memmove(e->in, stop + 4, e->in_length);
        e->state = OPEN;
        in_flight--;
        opened++;
        e->next_full = 0;
        if (!strcmp(mode, "storm")) {
            if (greet) send_data(e, &snap);
            if (e->state == OPEN) send_probe(e);
        }
    }
    if (e->state == OPEN) frames_in(e);
}

static void connected(struct edge *e) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        end(e);
        return;
    }
    char apikey[200], text[600];
    snprintf(apikey, sizeof apikey, key, e->number);
    int n = snprintf(text, sizeof text,
                     "GET / HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: YmVuY2hiZW5jaGJlbmNoIQ==\r\nSec-WebSocket-Version: 13\r\napikey: %s\r\n\r\n",
                     host, port, apikey);
    if (send(e->fd, text, n, MSG_NOSIGNAL) != n) {
        end(e);
        return;
    }
    e->state = SHAKING;
    watch(e, EPOLLIN);
}

static void turn(double timeout) {
    struct epoll_event events[256];
    int ms = timeout <= 0 ? 0 : timeout > 0.1 ? 100 : (int)(timeout * 1000);
    int n = epoll_wait(poller, events, 256, ms);
    for (int i = 0; i < n; i++) {
        struct edge *e = events[i].data.ptr;
        if (e->state == CLOSED) continue;
        if (e->state == CONNECTING) {
            connected(e);
            continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(e);
        if (e->state == OPEN && events[i].events & EPOLLOUT) {
            if (e->probed || strcmp(mode, "ingest")) {
                if (flush(e)) watch(e, EPOLLIN);
            } else {
                pump(e);
            }
        }
    }
}

static void connect_all(double deadline, int at_once) {
    int next = 0;
    while ((next < count || in_flight) && now() < deadline) {
        while (next < count && in_flight < at_once) {
            edges[next].number = first + next;
            start_connecting(&edges[next++]);
        }
        turn(0.1);
    }
    failed += count - next;
}

/* After a snapshot in that second. Of an edge that was there from the beginning a part of the time has gone by. */
static int next_snapshot(const struct edge *e, int second) {
    int gone_by = e->sent || !spread ? 0 : e->number % spread % SNAPSHOT_EVERY;
    return second + SNAPSHOT_EVERY - gone_by;
}

static const unsigned char goodbye[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};

static void leave(struct edge *e) { /* one of three ways, in turn */
    int way = churned++ % 3;
    if (way == 0) put(e, goodbye, sizeof goodbye);
    if (way == 2) {
        struct linger at_once = {1, 0};
        setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    end(e);
}

static void setting(const char *text) {
    const char *value = strchr(text, '=');
    if (!value) die(text);
    size_t n = value++ - text;
#define IS(name) (n == strlen(name) && !strncmp(text, name, n))
    if (IS("port")) port = atoi(value);
    else if (IS("host")) host = value;
    else if (IS("edges")) count = atoi(value);
    else if (IS("first")) first = atoi(value);
    else if (IS("key")) key = value;
    else if (IS("values")) values = atoi(value);
    else if (IS("messages")) messages = atoi(value);
    else if (IS("seconds")) seconds = atof(value);
    else if (IS("snapshot")) snapshot = atoi(value);
    else if (IS("spread")) spread = atoi(value);
    else if (IS("churn")) churn = atoi(value);
    else if (IS("greet")) greet = atoi(value);
    else if (IS("stay")) stay = atoi(value);
    else if (IS("reconnect")) reconnect = atoi(value);
    else if (IS("wait")) wait_for_go = atoi(value);
    else {
        fprintf(stderr, "generator: unknown setting %s\n", text);
        exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: generator ingest|hold|idle|storm [name=value ...]\n");
        return 2;
    }
    mode = argv[1];
    for (int i = 2; i < argc; i++) setting(argv[i]);
    if (count < 1 || count > MAX_EDGES || values < 1 || values > 5000 || snapshot < 1 || snapshot > 5000 ||
        seconds <= 0 || seconds > 86400 || messages < 1 ||
        spread < 0 || spread > 86400 || churn < 0 || churn > count || (churn && !reconnect)) {
        fprintf(stderr, "generator: a setting is out of range\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    srand(20261125);
    poller = epoll_create1(0);
    edges = calloc(count, sizeof *edges);
    scratch = malloc(400000);
    if (!edges || !scratch) die("memory");
    int hold = !strcmp(mode, "hold");
    for (int i = 0; i < VARIANTS; i++) data[i] = make_data(values, hold);
    snap = make_data(snapshot, hold);
    char text[200];
    int n = sprintf(text, "{\"jsonrpc\":\"2.0\",\"method\":\"benchProbe\",\"params\":{},"
                          "\"id\":\"7b5b0000-0000-4000-8000-000000000001\"}");
    probe_frame = make_frame(text, n, -1, -1);

    double began = now();
    int storm = !strcmp(mode, "storm");
    if (!storm) connect_all(began + 60, CONNECT_AT_ONCE);
    double connect_seconds = now() - began;
    if (wait_for_go) {
        printf("ready\n");
        fflush(stdout);
        char line[16];
        if (!fgets(line, sizeof line, stdin)) return 1;
    }
    if (storm) {
        began = now();
        connect_all(began + seconds, count);
    }
    double start = now(), deadline = start + seconds;
    if (!strcmp(mode, "ingest")) {
        for (int i = 0; i < count; i++)
            if (edges[i].state == OPEN) watch(&edges[i], EPOLLIN | EPOLLOUT);
        while (answered < opened && now() < deadline + 60) {
            if (!finishing && now() >= deadline) finishing = 1;
            turn(0.1);
        }
    } else if (hold) {
        /* edge i is due at i/count of each second */
        int64_t leaving = 0;
        for (int64_t k = 0;; k++) {
            double due = start + (double)k / count;
            if (due >= deadline) break;
            for (double left; (left = due - now()) > 0;) turn(left >= 0.001 ? left : reconnect ? 0.001 : 0);
            if (k % 64 == 0) turn(0);
            if (reconnect && k % count == 0) {
                struct pollfd told = {.fd = 0, .events = POLLIN};
                if (poll(&told, 1, 0)) break;
            }
            if (now() - due > most_behind) most_behind = now() - due;
            int second = k / count;
            if (churn && second && k % count % (count / churn) == 0) {
                struct edge *gone = &edges[leaving++ * 7919 % count];
                if (gone->state == OPEN) leave(gone);
            }
            struct edge *e = &edges[k % count];
            if (e->state == CLOSED && reconnect) {
                reconnected++;
                start_connecting(e);
            }
            if (e->state != OPEN) continue;
            if (second < e->next_full) {
                send_data(e, &data[(second + e->number) % VARIANTS]);
                continue;
            }
            snapshots++;
            e->next_full = next_snapshot(e, second);
            send_data(e, &snap);
        }
        for (int i = 0; i < count; i++)
            if (edges[i].state == OPEN) send_probe(&edges[i]);
        while (answered < opened && now() < deadline + 30) turn(0.05);
    } else if (storm) {
        while (answered < opened && now() < began + seconds) turn(0.05);
        connect_seconds = now() - began;
    } else {
        while (now() < deadline) turn(0.1);
    }
    double took = now() - start;
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu = use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    printf("{\"mode\":\"%s\",\"edges\":%d,\"open\":%d,\"failed\":%d,\"closed\":%d,\"answered\":%d,\"messages\":%lld,"
           "\"bytes\":%lld,\"bytes_per_message\":%d,\"values_per_message\":%d,\"pushed_back\":%lld,"
           "\"connect_seconds\":%.3f,\"seconds\":%.3f,\"generator_cpu_seconds\":%.3f",
           mode, count, opened, failed, closed_early - churned, answered, (long long)sent_messages, (long long)sent_bytes,
           data[0].length, values, (long long)pushed_back, connect_seconds, took, cpu);
    if (hold)
        printf(",\"snapshots\":%lld,\"most_behind_ms\":%.1f,\"churned\":%d", (long long)snapshots, most_behind * 1000,
               churned);
    if (hold && reconnect) {
        printf(",\"tries_to_reconnect\":%lld,\"first_second\":%lld,\"messages_by_second\":[",
               (long long)reconnected, (long long)first_second);
        for (int i = 0; i <= last_second; i++) printf("%s%d", i ? "," : "", sent_in[i]);
        printf("]");
    }
    printf("}\n");
    if (stay) {
        fflush(stdout);
        char line[16];
        if (!fgets(line, sizeof line, stdin)) return 1;
    }
    return 0;
}
