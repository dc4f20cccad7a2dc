/* The stand-in driver's other half: streams that put off all work until something waits, events
 * that note the time when a stream gets to them, and graphs that repeat recorded copies. */
#include "driver.h"

static void append(struct ops *ops, const struct op *more, size_t count) {
    ops->list = realloc(ops->list, (ops->count + count + 1) * sizeof *more);
    if (count) memcpy(ops->list + ops->count, more, count * sizeof *more);
    ops->count += count;
}

static int reachable(unsigned long long address, size_t bytes) {
    return !(address & DEVICE_BIT) || find_memory(DEVICE_MEMORY, address, bytes);
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static CUresult drain(struct object *stream) {
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < stream->ops.count; i++) {
        struct op op = stream->ops.list[i];
        void *to = (void *)(op.to & ~DEVICE_BIT), *from = (void *)(op.from & ~DEVICE_BIT);
        if (op.what == RECORD) {
            if (find(EVENT, op.event)) op.event->passed_ms = now_ms(), op.event->state = PASSED;
        } else if (!reachable(op.to, op.bytes) || !reachable(op.from, op.bytes)) {
            result = CUDA_ERROR_ILLEGAL_ADDRESS; /* memory that a graph knows, and freed since */
        } else if (op.what == COPY) {
            memcpy(to, from, op.bytes);
        } else {
            memset(to, op.value, op.bytes);
        }
    }
    stream->ops.count = 0;
    return result;
}

void drain_all(void) {
    for (struct object *it = objects; it; it = it->next)
        if (it->kind == STREAM) drain(it);
}

/* The stream of a handle, if it belongs to the context that is current, or needs none. */
static struct object *usable(CUstream handle) {
    struct object *stream = find(STREAM, handle);
    return stream && (from_handles || stream->context == current()) ? stream : NULL;
}

CUresult start(CUstream handle, struct op op) {
    struct object *stream = usable(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE);
    NEED(!stream->invalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    append(stream->capturing ? &stream->captured : &stream->ops, &op, 1);
    return CUDA_SUCCESS;
}

CUresult copy(unsigned long long to, unsigned long long from, size_t bytes, CUstream stream) {
    NEED(reachable(to, bytes) && reachable(from, bytes), CUDA_ERROR_INVALID_VALUE);
    PASS(start(stream, (struct op){.what = COPY, .to = to, .from = from, .bytes = bytes}));
    pageable_copies += !(to & DEVICE_BIT) && !find_memory(PAGE_LOCKED, to, bytes);
    pageable_copies += !(from & DEVICE_BIT) && !find_memory(PAGE_LOCKED, from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER_HANDLE;
    return copy(to, AT(from), bytes, stream);
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER_HANDLE;
    return copy(AT(to), from, bytes, stream);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER_HANDLE;
    return copy(to, from, bytes, stream);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER_HANDLE;
    NEED(reachable(to, bytes), CUDA_ERROR_INVALID_VALUE);
    return start(stream, (struct op){.what = FILL, .to = to, .bytes = bytes, .value = value});
}

/* --- Streams ---------------------------------------------------------------------------------- */

CUresult cuStreamCreate(CUstream *handle, unsigned flags) {
    ENTER_CONTEXT;
    struct object *stream = new_object(STREAM, 0);
    stream->flags = flags;
    *handle = (CUstream)stream;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream handle) {
    ENTER_CONTEXT;
    struct object *stream = usable(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE);
    abandoned += stream->ops.count; /* CUDA goes on with that work, into memory freed meanwhile */
    drain(stream);
    free_object(stream);
    return CUDA_SUCCESS;
}

/* What cannot be recorded spoils the capture that this thread has under way. */
CUresult recordable(void) {
    for (struct object *it = objects; it; it = it->next)
        if (it->kind == STREAM && it->capturing && pthread_equal(it->thread, pthread_self())) {
            it->invalidated = 1;
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle) {
    ENTER_HANDLE;
    struct object *stream = usable(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE);
    if (stream->capturing) return recordable();
    return drain(stream);
}

CUresult cuStreamQuery(CUstream handle) { return cuStreamSynchronize(handle); }

CUresult cuCtxSynchronize(void) {
    ENTER_CONTEXT;
    PASS(recordable());
    drain_all();
    return CUDA_SUCCESS;
}

/* --- Events ----------------------------------------------------------------------------------- */

CUresult cuEventCreate(CUevent *handle, unsigned flags) {
    ENTER_CONTEXT;
    struct object *event = new_object(EVENT, 0);
    event->flags = flags;
    *handle = (CUevent)event;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent handle) {
    ENTER_CONTEXT;
    struct object *event = find(EVENT, handle);
    NEED(event, CUDA_ERROR_INVALID_HANDLE);
    free_object(event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent handle, CUstream stream) {
    ENTER_HANDLE;
    struct object *event = find(EVENT, handle), *on = usable(stream);
    NEED(event && on, CUDA_ERROR_INVALID_HANDLE);
    event->state = on->capturing ? CAPTURED : PENDING, event->stream = on;
    if (on->capturing) return CUDA_SUCCESS; /* it orders a graph, and is no part of it */
    return start(stream, (struct op){.what = RECORD, .event = event});
}

CUresult cuEventSynchronize(CUevent handle) {
    ENTER_HANDLE;
    struct object *event = find(EVENT, handle);
    NEED(event, CUDA_ERROR_INVALID_HANDLE);
    NEED(event->state != CAPTURED, CUDA_ERROR_CAPTURED_EVENT);
    return event->state == PENDING ? drain(event->stream) : CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent handle) { return cuEventSynchronize(handle); }

CUresult cuEventElapsedTime(float *ms, CUevent start_handle, CUevent end_handle) {
    ENTER_HANDLE;
    struct object *events[] = {find(EVENT, start_handle), find(EVENT, end_handle)};
    for (int i = 0; i < 2; i++) {
        NEED(events[i] && events[i]->state != NEVER, CUDA_ERROR_INVALID_HANDLE);
        NEED(!(events[i]->flags & CU_EVENT_DISABLE_TIMING), CUDA_ERROR_INVALID_HANDLE);
        NEED(events[i]->state != CAPTURED, CUDA_ERROR_INVALID_VALUE); /* so an H200's, 580.159.04 */
        NEED(events[i]->state == PASSED, CUDA_ERROR_NOT_READY);
    }
    *ms = (float)(events[1]->passed_ms - events[0]->passed_ms);
    return CUDA_SUCCESS;
}

/* CUDA 12.8 gave the same function a new name; older programs ask for this one. */
#undef cuEventElapsedTime
CUresult cuEventElapsedTime(float *ms, CUevent start_handle, CUevent end_handle) {
    return cuEventElapsedTime_v2(ms, start_handle, end_handle);
}

/* --- Capture and graphs ----------------------------------------------------------------------- */

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    ENTER_HANDLE;
    struct object *stream = usable(handle);
    NEED(stream && mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CUDA_ERROR_INVALID_VALUE);
    NEED(!stream->capturing, CUDA_ERROR_ILLEGAL_STATE);
    stream->capturing = 1, stream->invalidated = 0, stream->thread = pthread_self();
    stream->captured.count = 0;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    ENTER_HANDLE;
    struct object *stream = usable(handle);
    *graph = NULL;
    NEED(stream && stream->capturing, CUDA_ERROR_ILLEGAL_STATE);
    NEED(pthread_equal(stream->thread, pthread_self()), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    int invalidated = stream->invalidated;
    stream->capturing = stream->invalidated = 0;
    NEED(!invalidated, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    struct object *it = new_object(GRAPH, 0);
    append(&it->ops, stream->captured.list, stream->captured.count);
    *graph = (CUgraph)it;
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    ENTER_HANDLE;
    struct object *stream = usable(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE);
    *status = stream->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
            : stream->capturing ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode *nodes, size_t *count) {
    ENTER;
    struct object *graph = find(GRAPH, handle);
    NEED(graph && !nodes, CUDA_ERROR_INVALID_VALUE);
    *count = graph->ops.count;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiate(CUgraphExec *executable, CUgraph handle, unsigned long long flags) {
    ENTER_HANDLE;
    struct object *graph = find(GRAPH, handle);
    NEED(graph && !flags, CUDA_ERROR_INVALID_VALUE);
    struct object *it = new_object(GRAPH_EXEC, 0);
    append(&it->ops, graph->ops.list, graph->ops.count);
    *executable = (CUgraphExec)it;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
    ENTER_HANDLE;
    struct object *graph = find(GRAPH_EXEC, handle), *on = usable(stream);
    NEED(graph && on, CUDA_ERROR_INVALID_HANDLE);
    append(on->capturing ? &on->captured : &on->ops, graph->ops.list, graph->ops.count);
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
    ENTER;
    struct object *it = find(GRAPH_EXEC, handle);
    NEED(it, CUDA_ERROR_INVALID_VALUE);
    free_object(it);
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph handle) {
    ENTER;
    struct object *it = find(GRAPH, handle);
    NEED(it, CUDA_ERROR_INVALID_VALUE);
    free_object(it);
    return CUDA_SUCCESS;
}
