/* The Python module: networks and sessions over flat buffers. The only file that knows Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels/sets.h"
#include "nodes/node.h"
#include "session.h"

static PyObject *raised(int status, const ev_fault *fault)
{
    if (status == EV_ERR_NO_MEMORY)
        return PyErr_NoMemory();
    if (status == EV_ERR_BAD_NETWORK) {
        PyObject *value = Py_BuildValue("(is)", fault->node, fault->what);

        PyErr_SetObject(PyExc_ValueError, value);
        Py_XDECREF(value);
        return NULL;
    }
    PyErr_SetString(PyExc_RuntimeError, ev_strerror(status));
    return NULL;
}

/* -- Network ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    ev_net *net;
} Network;

static PyObject *network_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", NULL};
    Network *self = NULL;
    ev_fault fault = {-1, NULL};
    Py_buffer data;
    int status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*", names, &data))
        return NULL;
    if ((uintptr_t)data.buf % 8 != 0) {
        PyErr_SetString(PyExc_ValueError, "data is not aligned to 8 bytes");
        goto out;
    }
    self = (Network *)type->tp_alloc(type, 0);
    if (self == NULL)
        goto out;
    Py_BEGIN_ALLOW_THREADS
    status = ev_net_load(data.buf, (size_t)data.len, &self->net, &fault);
    Py_END_ALLOW_THREADS
    if (status != EV_OK) {
        raised(status, &fault);
        Py_CLEAR(self);
    }
out:
    PyBuffer_Release(&data);
    return (PyObject *)self;
}

static void network_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    ev_net_free(((Network *)object)->net);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *network_bytes(PyObject *object, PyObject *ignored)
{
    int64_t bytes;
    int status = ev_state_bytes(((Network *)object)->net, &bytes);

    (void)ignored;
    return status == EV_OK ? PyLong_FromLongLong(bytes) : raised(status, NULL);
}

static PyMethodDef network_methods[] = {
    {"state_bytes", network_bytes, METH_NOARGS, "Bytes that each thread of a session takes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot network_slots[] = {
    {Py_tp_new, network_new},
    {Py_tp_dealloc, network_dealloc},
    {Py_tp_methods, network_methods},
    {Py_tp_doc, "A checked network; ValueError((node, what)) if it is not valid."},
    {0, NULL},
};

static PyType_Spec network_spec = {
    .name = "snncc.backends.event._core.Network",
    .basicsize = sizeof(Network),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = network_slots,
};

/* -- Session ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    Network *network;
    ev_session *session;
} Session;

static PyTypeObject *network_type(PyObject *module);

static int start(Session *self, const char *isa, int policy, ev_sizes sizes)
{
    const ev_kernels *kernels = ev_kernels_of(isa);
    int status;

    if (kernels == NULL) {
        PyErr_Format(PyExc_ValueError, "no instruction set '%s' here", isa);
        return -1;
    }
    if (sizes.threads < 1 || sizes.runs < 1 || sizes.patience < 0 || policy < EV_AUTO ||
        policy > EV_DENSE_ONLY) {
        PyErr_SetString(PyExc_ValueError, "threads, runs, patience or policy out of range");
        return -1;
    }
    status = ev_session_new(self->network->net, kernels, (ev_policy)policy, sizes, &self->session);
    if (status != EV_OK)
        raised(status, NULL);
    return status == EV_OK ? 0 : -1;
}

static int session_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"network", "isa", "policy", "threads", "runs", "patience", NULL};
    Session *self = (Session *)object;
    PyObject *network;
    const char *isa = NULL;
    int policy = EV_AUTO, threads = 1, runs = 1;
    long long patience = 0;
    PyTypeObject *type = network_type(PyType_GetModule(Py_TYPE(object)));

    if (self->session != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a session is started once");
        return -1;
    }
    if (type == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!|ziiiL", names, type, &network,
                                                     &isa, &policy, &threads, &runs, &patience))
        return -1;
    Py_INCREF(network);
    Py_XSETREF(self->network, (Network *)network);
    return start(self, isa, policy, (ev_sizes){threads, runs, patience});
}

static void session_dealloc(PyObject *object)
{
    Session *self = (Session *)object;
    PyTypeObject *type = Py_TYPE(object);

    ev_session_free(self->session);
    Py_XDECREF(self->network);
    type->tp_free(object);
    Py_DECREF(type);
}

/* Bytes that a node's results take for all timesteps and samples; 0: it has none. */
static Py_ssize_t result_bytes(const ev_net *net, Py_ssize_t node, int64_t samples)
{
    int64_t values = (int64_t)net->timesteps * samples * ev_elements(&net->node[node]);

    return (Py_ssize_t)values * (Py_ssize_t)ev_result_bytes(net, (int32_t)node);
}

/* The buffers of a run, released together. */
typedef struct {
    Py_buffer *view;
    Py_ssize_t held, room;
    void **node;
} buffers;

static int hold(buffers *held, const ev_net *net, PyObject *results, int64_t samples)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(results, &at, &key, &value)) {
        Py_ssize_t node = PyLong_AsSsize_t(key);
        Py_buffer *view = &held->view[held->held];

        if (held->held == held->room) { /* a buffer of Python's may run code, which may add some */
            PyErr_SetString(PyExc_RuntimeError, "results grew while they were read");
            return -1;
        }
        if (node < 0 || node >= net->nodes) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "results of a node that there is not");
            return -1;
        }
        if (PyObject_GetBuffer(value, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0)
            return -1;
        held->held++;
        if (view->len != result_bytes(net, node, samples) || view->len == 0) {
            PyErr_Format(PyExc_ValueError, "results of node %zd have the wrong size", node);
            return -1;
        }
        held->node[node] = view->buf;
    }
    return 0;
}

/* Whether all integers, int32, are what the source may emit. */
static int in_range(const ev_node *source, const Py_buffer *samples)
{
    const int32_t *value = samples->buf;

    if (source->format == EV_U8) {
        const uint8_t *byte = samples->buf;

        for (Py_ssize_t i = 0; i < samples->len; i++)
            if (byte[i] > source->payload)
                return 0;
        return 1;
    }
    for (Py_ssize_t i = 0; i < samples->len / 4; i++)
        if (value[i] < 0 || value[i] > source->payload)
            return 0;
    return 1;
}

static int check_samples(const ev_net *net, const Py_buffer *samples, Py_ssize_t count, int repeated)
{
    const ev_node *source = &net->node[0];
    Py_ssize_t bytes = (Py_ssize_t)ev_elements(source) * (source->format == EV_U8 ? 1 : 4);
    Py_ssize_t steps = repeated ? 1 : net->timesteps;

    if (count < 0 || (count > 0 && samples->len / count != steps * bytes) ||
        samples->len != count * steps * bytes)
        PyErr_SetString(PyExc_ValueError, "samples have the wrong size");
    else if (!in_range(source, samples))
        PyErr_SetString(PyExc_ValueError, "samples are out of the source's range");
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *session_run(PyObject *object, PyObject *args)
{
    Session *self = (Session *)object;
    const ev_net *net;
    Py_buffer samples;
    Py_ssize_t count;
    int repeated;
    PyObject *results, *outcome = NULL;
    buffers held = {0};
    int status;

    if (!PyArg_ParseTuple(args, "y*npO!", &samples, &count, &repeated, &PyDict_Type, &results))
        return NULL;
    if (self->session == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the session was not started");
        goto out;
    }
    net = self->network->net;
    held.room = PyDict_Size(results);
    held.view = PyMem_Calloc((size_t)held.room + 1, sizeof(*held.view));
    held.node = PyMem_Calloc((size_t)net->nodes, sizeof(*held.node));
    if (held.view == NULL || held.node == NULL) {
        PyErr_NoMemory();
        goto out;
    }
    if (check_samples(net, &samples, count, repeated) != 0 || hold(&held, net, results, count) != 0)
        goto out;
    Py_BEGIN_ALLOW_THREADS
    status = ev_session_run(self->session, samples.buf, repeated, &(ev_results){held.node, count});
    Py_END_ALLOW_THREADS
    outcome = status == EV_OK ? Py_NewRef(Py_None) : raised(status, NULL);
out:
    for (Py_ssize_t i = 0; i < held.held; i++)
        PyBuffer_Release(&held.view[i]);
    PyMem_Free(held.view);
    PyMem_Free(held.node);
    PyBuffer_Release(&samples);
    return outcome;
}

static PyObject *work_tuple(const ev_work *work)
{
    return Py_BuildValue("(LLLL)", (long long)work->runs, (long long)work->values, (long long)work->events,
                         (long long)work->event_work);
}

static PyObject *session_work(PyObject *object, PyObject *ignored)
{
    Session *self = (Session *)object;
    Py_ssize_t projections;
    ev_work *work;
    PyObject *list;

    (void)ignored;
    if (self->session == NULL)
        return PyList_New(0);
    projections = self->network->net->projections;
    work = PyMem_Calloc((size_t)projections + 1, sizeof(*work));
    if (work == NULL)
        return PyErr_NoMemory();
    ev_session_work(self->session, work);
    list = PyList_New(projections);
    for (Py_ssize_t k = 0; list != NULL && k < projections; k++) {
        PyObject *entry = work_tuple(&work[k]);

        if (entry == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, k, entry);
    }
    PyMem_Free(work);
    return list;
}

static PyMethodDef session_methods[] = {
    {"run", session_run, METH_VARARGS,
     "run(samples, count, is_repeated, results): fills results {node: buffer}; from any thread."},
    {"work", session_work, METH_NOARGS,
     "For each projection (runs, values that arrived, events, values computed event by event)."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_init, session_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, session_dealloc},
    {Py_tp_methods, session_methods},
    {Py_tp_doc, "Session(network, isa=None, policy=0, threads=1, runs=1, patience=0)\n\n"
                "threads compute a run, `runs` are computed at a time; a thread without work looks\n"
                "for some during `patience` ns before it sleeps."},
    {0, NULL},
};

static PyType_Spec session_spec = {
    .name = "snncc.backends.event._core.Session",
    .basicsize = sizeof(Session),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = session_slots,
};

/* -- module ------------------------------------------------------------------------------------- */

/* A tuple of the names of those that were built and that this machine has, the fastest first. */
static PyObject *isas(PyObject *module, PyObject *none)
{
    static const char *const names[] = {EV_SETS(EV_NAME)};
    PyObject *found = PyList_New(0), *result;

    (void)module;
    (void)none;
    for (size_t i = 0; found != NULL && i < sizeof names / sizeof *names; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);

        if (name == NULL || (ev_kernels_of(names[i]) != NULL && PyList_Append(found, name) < 0))
            Py_CLEAR(found);
        Py_XDECREF(name);
    }
    result = found == NULL ? NULL : PyList_AsTuple(found);
    Py_XDECREF(found);
    return result;
}

static PyMethodDef functions[] = {
    {"isas", isas, METH_NOARGS, "isas(): names of the instruction sets there are here, fastest first."},
    {NULL, NULL, 0, NULL},
};

typedef struct {
    PyTypeObject *network;
} module_state;

static PyTypeObject *network_type(PyObject *module)
{
    return module == NULL ? NULL : ((module_state *)PyModule_GetState(module))->network;
}

static int add_types(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    PyObject *session;

    state->network = (PyTypeObject *)PyType_FromModuleAndSpec(module, &network_spec, NULL);
    if (state->network == NULL || PyModule_AddType(module, state->network) != 0)
        return -1;
    session = PyType_FromModuleAndSpec(module, &session_spec, NULL);
    if (session == NULL)
        return -1;
    if (PyModule_AddType(module, (PyTypeObject *)session) != 0) {
        Py_DECREF(session);
        return -1;
    }
    Py_DECREF(session);
    return 0;
}

static int module_clear(PyObject *module)
{
    Py_CLEAR(((module_state *)PyModule_GetState(module))->network);
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Py_VISIT(((module_state *)PyModule_GetState(module))->network);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)add_types},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The event engine.",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
