/* What the stand-in driver's two halves share: objects, the one lock, and the checks on entry. */
#include <cuda.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEVICE_BIT (1ULL << 47) /* beyond what a process can address: the CPU cannot touch it */
#define AT(pointer) ((unsigned long long)(pointer))

enum kind { CONTEXT, DEVICE_MEMORY, PAGE_LOCKED, STREAM, EVENT, GRAPH, GRAPH_EXEC, KINDS };

struct op { /* one thing that a stream does */
    enum { COPY, FILL, RECORD } what;
    unsigned long long to, from; /* addresses, of the device or of the host */
    size_t bytes;
    unsigned char value;
    struct object *event;
};

struct ops { struct op *list; size_t count; };

struct object { /* whatever has a handle: the object's address, or that of its memory */
    enum kind kind;
    struct object *next, *context;
    unsigned flags;
    char *memory; size_t bytes;               /* memory */
    int references, destroyed;                /* context */
    struct ops ops;                           /* stream: not done yet; graph: recorded */
    int capturing, invalidated;               /* stream */
    pthread_t thread; struct ops captured;    /* stream: of its capture */
    enum { NEVER, PENDING, PASSED, CAPTURED } state; /* event */
    double passed_ms; struct object *stream;  /* event */
};

extern pthread_mutex_t lock;
extern struct object *objects;
extern long pageable_copies, abandoned;
extern int from_handles;

void unlock(int *unused);
CUresult entered(const char *function);
CUresult in_context(void);
CUresult recordable(void);
struct object *current(void);
struct object *new_object(enum kind kind, size_t bytes);
void free_object(struct object *it);
struct object *find(enum kind kind, const void *handle);
struct object *find_memory(enum kind kind, unsigned long long address, size_t bytes);
CUresult copy(unsigned long long to, unsigned long long from, size_t bytes, CUstream stream);
CUresult start(CUstream stream, struct op op);
void drain_all(void);

/* From the generated stubs.c. */
const char *stub_error_name(int code);
const char *stub_error_text(int code);
void *stub_symbol(const char *name, int version);

#define NEED(condition, error) do { if (!(condition)) return (error); } while (0)
#define PASS(call) do { CUresult code_ = (call); if (code_) return code_; } while (0)
/* One call at a time; one that was told to fail does so. */
#define ENTER                                                                                     \
    __attribute__((cleanup(unlock), unused)) int locked_ = pthread_mutex_lock(&lock);             \
    PASS(entered(__func__))
/* The same for what needs a context on this thread. */
#define ENTER_CONTEXT ENTER; PASS(in_context())
/* The same for what has the handle of a stream, an event or a graph. A driver may take the context
 * from that: an H200's, 580.159.04, refused not all of these calls on a thread without one. */
#define ENTER_HANDLE ENTER; if (!from_handles) PASS(in_context())
