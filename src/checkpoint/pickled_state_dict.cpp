#include "src/checkpoint/pickled_state_dict.h"

#include <set>

#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/tensor_unpickler.h"

namespace optp {

std::vector<PickledTensor> read_pickled_state_dict(std::string_view bytes, const std::string& file) {
  pickle::TensorUnpickler unpickler(bytes, file);
  if (bytes.size() > pickle::kLongestPickle) {
    unpickler.refuse("its pickle has ", bytes.size(), " bytes, above the limit of ", pickle::kLongestPickle);
  }
  const pickle::Value& value = unpickler.run();
  const pickle::Dict* dict = std::get_if<pickle::Dict>(&value);
  if (dict == nullptr) unpickler.refuse("it holds ", pickle::kind_of(value), ", not a dict of tensors by name");
  std::vector<PickledTensor> tensors;
  std::set<std::string_view> names;
  for (size_t i = 0; i < dict->items.size(); i += 2) {
    const pickle::Value& key = unpickler.at(dict->items[i]);
    const pickle::Value& item = unpickler.at(dict->items[i + 1]);
    const auto* name = std::get_if<std::string_view>(&key);
    if (name == nullptr)
      unpickler.refuse("its dict has ", pickle::kind_of(key), " for a key, not the name of a tensor");
    const auto* tensor = std::get_if<PickledTensor>(&item);
    if (tensor == nullptr) {
      unpickler.refuse("its entry ", shown_name(*name), " is ", pickle::kind_of(item),
                       ", not a tensor; save the model's state_dict() alone");
    }
    if (!names.insert(*name).second) unpickler.refuse("it has the tensor ", shown_name(*name), " twice");
    tensors.push_back(*tensor);
    tensors.back().name = *name;
  }
  return tensors;
}

}  // namespace optp
