// The native half of tfjs-jit: upstream's binding as it is, plus graphs.
//
// Upstream executes one op at a time. The functions below record ops in a TF_Graph instead, and turn that graph into
// a TensorFlow function that upstream's executeOp runs by its name. Everything that decides what is recorded is in
// TypeScript; here is only what needs the C API:
//
//   graphCreate() -> graph                                an empty graph, freed with its JavaScript value
//   graphPlaceholder(graph, dtype, shape) -> node         an input; shape as int[]
//   graphConstant(graph, tensorId) -> node                the value of an eager tensor
//   graphOp(graph, type, attrs, inputs, controls)         one op; inputs: ids, an inner array is one list input;
//     -> node[]                                             controls: ids whose ops must have run before
//   graphSetShape(graph, id, shape) -> node               states a shape that inference does not know
//   graphToFunction(graph, name, inputs, outputs)         registers the function in this environment's context;
//                                                           ops without outputs (assignments) run as its effects
//   removeFunction(name)                                  forgets it
//   tensorNode(tensorId) -> node                          what an eager tensor is
//
// A node is {id, dtype, shape}; shape is null where the rank is unknown and has -1 where a size is. State belongs to
// the graph or to the environment: nothing here is static.

#include <dlfcn.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <node_api.h>

// The context and the handle map are private upstream, with no accessor.
#define private public
#include "tfjs_backend.h"
#undef private

// Upstream's module initialiser is called from ours, so its own registration is left out.
#undef NAPI_MODULE
#define NAPI_MODULE(name, init)
#include "tfjs_binding.cc"

#include "custom-calls.h"
#include "tf_auto_status.h"
#include "tf_auto_tensor.h"
#include "tsl/platform/tensor_float_32_utils.h"

namespace tfnodejs {
namespace {

struct Graph {
  TF_Graph *graph = TF_NewGraph();
  std::vector<TF_Output> outputs;         // a node's id is its index here
  std::vector<TF_Operation *> effects;    // ops without outputs
  int operations = 0;                     // names are numbered
  ~Graph() { TF_DeleteGraph(graph); }

  std::string NextName() { return "op" + std::to_string(operations++); }
};

// ---- Reading arguments. A failed read leaves a pending JavaScript exception.

template <size_t N>
bool Arguments(napi_env env, napi_callback_info info, napi_value (&args)[N]) {
  size_t count = N;
  if (napi_get_cb_info(env, info, &count, args, nullptr, nullptr) == napi_ok && count == N) return true;
  NAPI_THROW_ERROR(env, "expected %zu arguments, got %zu", N, count);
  return false;
}

Graph *GraphOf(napi_env env, napi_value value) {
  void *graph = nullptr;
  if (napi_get_value_external(env, value, &graph) != napi_ok) NAPI_THROW_ERROR(env, "expected a graph");
  return static_cast<Graph *>(graph);
}

int64_t IntOf(napi_env env, napi_value value) {
  int64_t number = 0;
  if (napi_get_value_int64(env, value, &number) != napi_ok) NAPI_THROW_ERROR(env, "expected a number");
  return number;
}

std::string StringOf(napi_env env, napi_value value) {
  std::string text;
  if (GetStringParam(env, value, text) != napi_ok) NAPI_THROW_ERROR(env, "expected a string");
  return text;
}

bool IsArrayValue(napi_env env, napi_value value) {
  bool is_array = false;
  napi_is_array(env, value, &is_array);
  return is_array;
}

napi_value Property(napi_env env, napi_value object, const char *name) {
  napi_value value = nullptr;
  napi_get_named_property(env, object, name, &value);
  return value;
}

template <typename Each>
void ForEach(napi_env env, napi_value array, Each each) {
  uint32_t length = 0;
  napi_get_array_length(env, array, &length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    napi_get_element(env, array, i, &element);
    each(element);
  }
}

std::vector<int64_t> IntsOf(napi_env env, napi_value array) {
  std::vector<int64_t> numbers;
  ForEach(env, array, [&](napi_value element) { numbers.push_back(IntOf(env, element)); });
  return numbers;
}

std::vector<TF_Output> OutputsOf(napi_env env, const Graph &graph, napi_value ids) {
  std::vector<TF_Output> outputs;
  ForEach(env, ids, [&](napi_value id) { outputs.push_back(graph.outputs.at(IntOf(env, id))); });
  return outputs;
}

// ---- Nodes

napi_value Number(napi_env env, int64_t number) {
  napi_value value;
  napi_create_int64(env, number, &value);
  return value;
}

napi_value NewNode(napi_env env, int64_t id, TF_DataType dtype, const std::vector<int64_t> *sizes) {
  napi_value node, shape;
  napi_create_object(env, &node);
  napi_set_named_property(env, node, "id", Number(env, id));
  napi_set_named_property(env, node, "dtype", Number(env, dtype));
  if (sizes) {
    napi_create_array_with_length(env, sizes->size(), &shape);
    for (size_t i = 0; i < sizes->size(); i++) napi_set_element(env, shape, i, Number(env, (*sizes)[i]));
  } else {
    napi_get_null(env, &shape);
  }
  napi_set_named_property(env, node, "shape", shape);
  return node;
}

napi_value NodeOf(napi_env env, const Graph &graph, size_t id) {
  const TF_Output output = graph.outputs[id];
  const TF_DataType dtype = TF_OperationOutputType(output);
  TF_AutoStatus status;
  const int rank = TF_GraphGetTensorNumDims(graph.graph, output, status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  if (rank < 0) return NewNode(env, id, dtype, nullptr);
  std::vector<int64_t> sizes(rank);
  TF_GraphGetTensorShape(graph.graph, output, sizes.data(), rank, status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  return NewNode(env, id, dtype, &sizes);
}

TFE_TensorHandle *HandleOf(napi_env env, napi_value tensor_id) {
  const auto &handles = GetTFJSBackend(env)->tfe_handle_map_;
  const auto handle = handles.find(static_cast<int32_t>(IntOf(env, tensor_id)));
  if (handle != handles.end()) return handle->second;
  NAPI_THROW_ERROR(env, "no eager tensor has this id");
  return nullptr;
}

// Finishes an op and gives its outputs as nodes; null with a pending exception where TensorFlow refuses it.
napi_value Finish(napi_env env, Graph &graph, TF_OperationDescription *description) {
  TF_AutoStatus status;
  TF_Operation *operation = TF_FinishOperation(description, status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  const int count = TF_OperationNumOutputs(operation);
  if (count == 0) graph.effects.push_back(operation);
  napi_value nodes;
  napi_create_array_with_length(env, count, &nodes);
  for (int i = 0; i < count; i++) {
    graph.outputs.push_back({operation, i});
    napi_set_element(env, nodes, i, NodeOf(env, graph, graph.outputs.size() - 1));
  }
  return nodes;
}

napi_value FinishOne(napi_env env, Graph &graph, TF_OperationDescription *description) {
  napi_value nodes = Finish(env, graph, description), node = nullptr;
  if (nodes) napi_get_element(env, nodes, 0, &node);
  return node;
}

// A field of a protocol buffer whose value is bytes: its key, the length as a varint, and the bytes.
std::string Field(int number, const std::string &bytes) {
  std::string field(1, static_cast<char>(number << 3 | 2));
  size_t length = bytes.size();
  for (; length >= 0x80; length >>= 7) field += static_cast<char>((length & 0x7f) | 0x80);
  field += static_cast<char>(length);
  return field + bytes;
}

// AttrValue{list: {func: [{name}, ...]}} (tensorflow/core/framework/attr_value.proto): the C API sets no list of functions.
std::string FunctionListProto(const std::vector<std::string> &functions) {
  std::string list;
  for (const std::string &function : functions) list += Field(9, Field(1, function));
  return Field(1, list);
}

// Sets one attribute {name, type, value} as upstream's kernels write them; also lists of types, shapes and functions.
void SetAttribute(napi_env env, TF_OperationDescription *op, napi_value attribute) {
  const std::string name = StringOf(env, Property(env, attribute, "name"));
  napi_value value = Property(env, attribute, "value");
  const bool is_list = IsArrayValue(env, value);
  const int64_t type = IntOf(env, Property(env, attribute, "type"));
  switch (type) {
    case TF_ATTR_TYPE:
      if (is_list) {
        std::vector<TF_DataType> types;
        for (int64_t t : IntsOf(env, value)) types.push_back(static_cast<TF_DataType>(t));
        TF_SetAttrTypeList(op, name.c_str(), types.data(), types.size());
      } else {
        TF_SetAttrType(op, name.c_str(), static_cast<TF_DataType>(IntOf(env, value)));
      }
      break;
    case TF_ATTR_INT:
      if (is_list) {
        const std::vector<int64_t> numbers = IntsOf(env, value);
        TF_SetAttrIntList(op, name.c_str(), numbers.data(), numbers.size());
      } else {
        TF_SetAttrInt(op, name.c_str(), IntOf(env, value));
      }
      break;
    case TF_ATTR_FLOAT: {
      double number = 0;
      napi_get_value_double(env, value, &number);
      TF_SetAttrFloat(op, name.c_str(), static_cast<float>(number));
      break;
    }
    case TF_ATTR_BOOL: {
      bool flag = false;
      napi_get_value_bool(env, value, &flag);
      TF_SetAttrBool(op, name.c_str(), flag);
      break;
    }
    case TF_ATTR_STRING: {
      const std::string text = StringOf(env, value);
      TF_SetAttrString(op, name.c_str(), text.data(), text.size());
      break;
    }
    case TF_ATTR_FUNC: {
      if (is_list) {
        std::vector<std::string> functions;
        ForEach(env, value, [&](napi_value function) { functions.push_back(StringOf(env, function)); });
        const std::string proto = FunctionListProto(functions);
        TF_AutoStatus status;
        TF_SetAttrValueProto(op, name.c_str(), proto.data(), proto.size(), status.status);
        ENSURE_TF_OK_RETVAL(env, status, );
      } else {
        const std::string function = StringOf(env, value);
        TF_SetAttrFuncName(op, name.c_str(), function.data(), function.size());
      }
      break;
    }
    case TF_ATTR_SHAPE: {
      std::vector<std::vector<int64_t>> shapes;
      if (name == "output_shapes" || name == "result_shapes") {
        ForEach(env, value, [&](napi_value shape) { shapes.push_back(IntsOf(env, shape)); });
        std::vector<const int64_t *> sizes;
        std::vector<int> ranks;
        for (const auto &shape : shapes) {
          sizes.push_back(shape.data());
          ranks.push_back(static_cast<int>(shape.size()));
        }
        TF_SetAttrShapeList(op, name.c_str(), sizes.data(), ranks.data(), static_cast<int>(shapes.size()));
      } else {
        const std::vector<int64_t> shape = IntsOf(env, value);
        TF_SetAttrShape(op, name.c_str(), shape.data(), static_cast<int>(shape.size()));
      }
      break;
    }
    default:
      NAPI_THROW_ERROR(env, "attribute %s has the unknown type %d", name.c_str(), static_cast<int>(type));
  }
}

// ---- The exported functions

napi_value GraphCreate(napi_env env, napi_callback_info) {
  napi_value external;
  napi_create_external(env, new Graph(), [](napi_env, void *graph, void *) { delete static_cast<Graph *>(graph); }, nullptr,
                       &external);
  return external;
}

napi_value GraphPlaceholder(napi_env env, napi_callback_info info) {
  napi_value args[3];
  if (!Arguments(env, info, args)) return nullptr;
  Graph *graph = GraphOf(env, args[0]);
  if (!graph) return nullptr;
  const std::vector<int64_t> shape = IntsOf(env, args[2]);
  auto *op = TF_NewOperation(graph->graph, "Placeholder", graph->NextName().c_str());
  TF_SetAttrType(op, "dtype", static_cast<TF_DataType>(IntOf(env, args[1])));
  TF_SetAttrShape(op, "shape", shape.data(), static_cast<int>(shape.size()));
  return FinishOne(env, *graph, op);
}

napi_value GraphConstant(napi_env env, napi_callback_info info) {
  napi_value args[2];
  if (!Arguments(env, info, args)) return nullptr;
  Graph *graph = GraphOf(env, args[0]);
  if (!graph) return nullptr;
  TFE_TensorHandle *handle = HandleOf(env, args[1]);
  if (!handle) return nullptr;
  TF_AutoStatus status;
  TF_AutoTensor tensor(TFE_TensorHandleResolve(handle, status.status));
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  auto *op = TF_NewOperation(graph->graph, "Const", graph->NextName().c_str());
  TF_SetAttrType(op, "dtype", TF_TensorType(tensor.tensor));
  TF_SetAttrTensor(op, "value", tensor.tensor, status.status);
  return FinishOne(env, *graph, op);
}

napi_value GraphOp(napi_env env, napi_callback_info info) {
  napi_value args[5];
  if (!Arguments(env, info, args)) return nullptr;
  Graph *graph = GraphOf(env, args[0]);
  if (!graph) return nullptr;
  auto *op = TF_NewOperation(graph->graph, StringOf(env, args[1]).c_str(), graph->NextName().c_str());
  ForEach(env, args[3], [&](napi_value input) {
    if (IsArrayValue(env, input)) {
      const std::vector<TF_Output> list = OutputsOf(env, *graph, input);
      TF_AddInputList(op, list.data(), static_cast<int>(list.size()));
    } else {
      TF_AddInput(op, graph->outputs.at(IntOf(env, input)));
    }
  });
  for (const TF_Output &control : OutputsOf(env, *graph, args[4])) TF_AddControlInput(op, control.oper);
  ForEach(env, args[2], [&](napi_value attribute) { SetAttribute(env, op, attribute); });
  // The description is finished even after a bad attribute: TensorFlow frees it nowhere else.
  return Finish(env, *graph, op);
}

napi_value GraphSetShape(napi_env env, napi_callback_info info) {
  napi_value args[3];
  if (!Arguments(env, info, args)) return nullptr;
  Graph *graph = GraphOf(env, args[0]);
  if (!graph) return nullptr;
  const size_t id = IntOf(env, args[1]);
  const std::vector<int64_t> shape = IntsOf(env, args[2]);
  TF_AutoStatus status;
  TF_GraphSetTensorShape(graph->graph, graph->outputs.at(id), shape.data(), static_cast<int>(shape.size()), status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  return NodeOf(env, *graph, id);
}

napi_value GraphToFunction(napi_env env, napi_callback_info info) {
  napi_value args[4];
  if (!Arguments(env, info, args)) return nullptr;
  Graph *graph = GraphOf(env, args[0]);
  if (!graph) return nullptr;
  const std::string name = StringOf(env, args[1]);
  const std::vector<TF_Output> inputs = OutputsOf(env, *graph, args[2]), outputs = OutputsOf(env, *graph, args[3]);
  TF_AutoStatus status;
  std::unique_ptr<TF_Function, void (*)(TF_Function *)> function(
      TF_GraphToFunctionWithControlOutputs(graph->graph, name.c_str(), 0, -1, nullptr, static_cast<int>(inputs.size()), inputs.data(),
                                           static_cast<int>(outputs.size()), outputs.data(), nullptr,
                                           static_cast<int>(graph->effects.size()), graph->effects.data(), nullptr, nullptr, nullptr,
                                           status.status),
      TF_DeleteFunction);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  TFE_ContextAddFunction(GetTFJSBackend(env)->tfe_context_, function.get(), status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  return nullptr;
}

napi_value RemoveFunction(napi_env env, napi_callback_info info) {
  napi_value args[1];
  if (!Arguments(env, info, args)) return nullptr;
  TF_AutoStatus status;
  TFE_ContextRemoveFunction(GetTFJSBackend(env)->tfe_context_, StringOf(env, args[0]).c_str(), status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  return nullptr;
}

napi_value TensorNode(napi_env env, napi_callback_info info) {
  napi_value args[1];
  if (!Arguments(env, info, args)) return nullptr;
  TFE_TensorHandle *handle = HandleOf(env, args[0]);
  if (!handle) return nullptr;
  TF_AutoStatus status;
  std::vector<int64_t> sizes(TFE_TensorHandleNumDims(handle, status.status));
  for (size_t i = 0; i < sizes.size(); i++) sizes[i] = TFE_TensorHandleDim(handle, static_cast<int>(i), status.status);
  ENSURE_TF_OK_RETVAL(env, status, nullptr);
  return NewNode(env, IntOf(env, args[0]), TFE_TensorHandleDataType(handle), &sizes);
}

// A step allocates and frees the same large buffers again and again. Left to itself, glibc gives each back to the kernel,
// which clears its pages when it hands them out the next time: a fifth of a training step on two cores.
void KeepFreedMemory() {
  constexpr int kLargest = 1 << 30, kLargestOfOldGlibc = 32 << 20;
  if (!mallopt(M_MMAP_THRESHOLD, kLargest)) mallopt(M_MMAP_THRESHOLD, kLargestOfOldGlibc);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

// TensorFlow registers a GPU only if it can open each of CUDA's libraries, and looks for them on the run path of
// libtensorflow_framework, which lacks this one's folder (Python's tensorflow finds it otherwise). A library that is loaded
// already is found by its name; ours is found on the run path that setup-binding.ts gives.
void LoadCusolver() { dlopen("libcusolver.so.11", RTLD_LAZY); }

}  // namespace
}  // namespace tfnodejs

// TensorFlow's newer messages go through Abseil, which knows nothing of TF_CPP_MIN_LOG_LEVEL, and the first comes while the
// library loads, before anything could be called. So the function that Abseil asks for its level is replaced: the
// definition in the object that is loaded first, this one, is the one that all use. Its namespace is that of the Abseil in
// TensorFlow 2.21; with another the messages would be back, no more.
namespace absl {
inline namespace lts_20250814 {
enum class LogSeverityAtLeast : int;
LogSeverityAtLeast MinLogLevel() {
  static const char *const level = std::getenv("TF_CPP_MIN_LOG_LEVEL");
  return static_cast<LogSeverityAtLeast>(level ? std::atoi(level) : 0);
}
}  // namespace lts_20250814
}  // namespace absl

// XLA's table of custom calls (xla/service/custom_call_target_registry.h, a header that the wheel lacks).
namespace xla {
class CustomCallTargetRegistry {
 public:
  static CustomCallTargetRegistry *Global();
  void Register(const std::string &symbol, void *address, const std::string &platform);
};
}  // namespace xla

NAPI_MODULE_INIT() {
  using namespace tfnodejs;
  KeepFreedMemory();
  LoadCusolver();
  // On a GPU TensorFlow would round float32 factors to 10 bits of mantissa (TF32). Whoever wants that asks for bfloat16.
  tsl::enable_tensor_float_32_execution(false);
  auto *const calls = xla::CustomCallTargetRegistry::Global();
  calls->Register("heddle_matmul", reinterpret_cast<void *>(heddle::MatMul), "Host");
  calls->Register("heddle_gather", reinterpret_cast<void *>(heddle::GatherHalves), "Host");
  exports = InitTFNodeJSBinding(env, exports);
  if (!exports) return nullptr;
  const std::pair<const char *, napi_callback> functions[] = {
      {"graphCreate", GraphCreate},     {"graphPlaceholder", GraphPlaceholder}, {"graphConstant", GraphConstant}, {"graphOp", GraphOp},
      {"graphSetShape", GraphSetShape}, {"graphToFunction", GraphToFunction},   {"removeFunction", RemoveFunction},
      {"tensorNode", TensorNode},
  };
  for (const auto &[name, callback] : functions) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
    napi_set_named_property(env, exports, name, function);
  }
  const std::pair<const char *, int> constants[] = {{"TF_ATTR_FUNC", TF_ATTR_FUNC}, {"TF_BFLOAT16", TF_BFLOAT16}};
  for (const auto &[name, value] : constants) AssignIntProperty(env, exports, name, value);
  return exports;
}
