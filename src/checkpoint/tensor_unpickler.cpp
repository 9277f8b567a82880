#include "src/checkpoint/tensor_unpickler.h"

#include <c10/util/ArrayRef.h>

#include <algorithm>
#include <array>
#include <utility>

#include "src/checkpoint/safetensors_header.h"

namespace optp::pickle {
namespace {

constexpr size_t kMostDimensions = 64;  // ATen's limit
constexpr std::array<std::pair<std::string_view, c10::ScalarType>, 10> kStorages = {{
    {"DoubleStorage", c10::kDouble},
    {"FloatStorage", c10::kFloat},
    {"HalfStorage", c10::kHalf},
    {"BFloat16Storage", c10::kBFloat16},
    {"LongStorage", c10::kLong},
    {"IntStorage", c10::kInt},
    {"ShortStorage", c10::kShort},
    {"CharStorage", c10::kChar},
    {"ByteStorage", c10::kByte},
    {"BoolStorage", c10::kBool},
}};

const std::pair<std::string_view, c10::ScalarType>* find_storage(const Function& function) {
  return std::find_if(kStorages.begin(), kStorages.end(), [&](const auto& storage) {
    return function.module == "torch" && function.name == storage.first;
  });
}

bool is_ordered_dict(const Function& function) {
  return function.module == "collections" && function.name == "OrderedDict";
}
bool is_rebuild_tensor(const Function& function) {
  return function.module == "torch._utils" && function.name == "_rebuild_tensor_v2";
}
bool is_rebuild_parameter(const Function& function) {
  return function.module == "torch._utils" && function.name == "_rebuild_parameter";
}

}  // namespace

bool TensorUnpickler::knows(const Function& function) const {
  return is_ordered_dict(function) || is_rebuild_tensor(function) || is_rebuild_parameter(function) ||
         find_storage(function) != kStorages.end();
}

Value TensorUnpickler::call(const Function& function, const References& arguments) const {
  if (is_ordered_dict(function) && arguments.empty()) return Dict{};
  if (is_rebuild_tensor(function) && arguments.size() >= 4) return tensor(arguments);
  if (is_rebuild_parameter(function) && !arguments.empty()) {
    return as<PickledTensor>(at(arguments[0]), "a parameter's tensor");
  }
  refuse_here("its pickle calls ", shown_name(function.full()), " with ", arguments.size(), " arguments");
}

// ("storage", torch.FloatStorage, key, location, number of elements)
Value TensorUnpickler::outside(const Tuple& id) const {
  if (id.items.size() != 5 || as<std::string_view>(at(id.items[0]), "\"storage\"") != "storage") {
    refuse_here("its pickle refers to something outside it that is no storage");
  }
  const auto& type = as<Function>(at(id.items[1]), "the type of a storage");
  const auto* found = find_storage(type);
  if (found == kStorages.end()) refuse("its pickle has a storage of type ", shown_name(type.full()));
  const int64_t size = as<int64_t>(at(id.items[4]), "the size of a storage");
  if (size < 0) refuse("its pickle has a storage of ", size, " elements");
  return Storage{found->second, as<std::string_view>(at(id.items[2]), "the key of a storage"), size};
}

std::vector<int64_t> TensorUnpickler::sizes(const Value& value, const char* what) const {
  const References& items = as<Tuple>(value, what).items;
  if (items.size() > kMostDimensions) refuse_here("its pickle has ", items.size(), " numbers in ", what);
  std::vector<int64_t> result;
  for (const Reference item : items) {
    const int64_t size = as<int64_t>(at(item), what);
    if (size < 0) refuse_here("its pickle has ", size, " in ", what);
    result.push_back(size);
  }
  return result;
}

// (storage, offset, shape, strides, ...); what follows concerns training
PickledTensor TensorUnpickler::tensor(const References& arguments) const {
  const auto& storage = as<Storage>(at(arguments[0]), "the storage of a tensor");
  PickledTensor tensor{.dtype = storage.dtype,
                       .storage = storage.key,
                       .storage_size = static_cast<uint64_t>(storage.size),
                       .offset = as<int64_t>(at(arguments[1]), "the offset of a tensor"),
                       .shape = sizes(at(arguments[2]), "the shape of a tensor"),
                       .strides = sizes(at(arguments[3]), "the strides of a tensor")};
  const c10::ArrayRef<int64_t> shape(tensor.shape);
  const c10::ArrayRef<int64_t> strides(tensor.strides);
  if (shape.size() != strides.size()) {
    refuse("its pickle has a tensor of shape ", shape, " and strides ", strides);
  }
  // Dimensions of 0 count as 1: no product of the others may overflow either.
  int64_t elements = static_cast<int64_t>(c10::elementSize(tensor.dtype));
  int64_t last = tensor.offset;
  bool overflow = false;
  bool empty = false;
  for (size_t i = 0; i < shape.size(); ++i) {
    int64_t reach = 0;
    empty = empty || shape[i] == 0;
    overflow = overflow || __builtin_mul_overflow(elements, std::max<int64_t>(shape[i], 1), &elements) ||
               __builtin_mul_overflow(std::max<int64_t>(shape[i], 1) - 1, strides[i], &reach) ||
               __builtin_add_overflow(last, reach, &last);
  }
  if (overflow || tensor.offset < 0 || (empty ? tensor.offset > storage.size : last >= storage.size)) {
    refuse("its pickle has a tensor of shape ", shape, ", strides ", strides, " and offset ", tensor.offset,
           " in a storage of ", storage.size, " elements");
  }
  return tensor;
}

}  // namespace optp::pickle
