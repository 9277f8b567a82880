#include "src/checkpoint/pickled_module.h"

#include <set>

#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/tensor_unpickler.h"

namespace optp {
namespace {

// Besides tensors it knows the classes of TorchScript modules, all under __torch__. An object is the dict of its
// attributes.
class ModuleUnpickler final : public pickle::TensorUnpickler {
 public:
  using TensorUnpickler::TensorUnpickler;

 private:
  static bool is_module_class(const pickle::Function& function) {
    return function.module == "__torch__" || function.module.starts_with("__torch__.");
  }

  bool knows(const pickle::Function& function) const override {
    return is_module_class(function) || TensorUnpickler::knows(function);
  }

  pickle::Value new_object(const pickle::Function& type) const override {
    if (!is_module_class(type)) refuse_here("its pickle makes an object of ", shown_name(type.full()));
    return pickle::Dict{};
  }

  void set_attributes(pickle::Value& object, const pickle::Dict& attributes) const override {
    auto* dict = std::get_if<pickle::Dict>(&object);
    if (dict == nullptr) refuse_here("its pickle gives attributes to ", pickle::kind_of(object));
    const pickle::References items = attributes.items;  // a copy: it may be the same dict
    dict->items.insert(dict->items.end(), items.begin(), items.end());
  }
};

// Walks through the modules and collects their tensors.
class TensorCollector {
 public:
  TensorCollector(const ModuleUnpickler& unpickler, PickledModule& module) : unpickler_(unpickler), module_(module) {}

  void collect(const pickle::Dict& attributes, const std::string& prefix, int depth) {
    constexpr int kDeepest = 16;  // optp's go 6 deep
    if (depth > kDeepest) unpickler_.refuse("its modules nest more than ", kDeepest, " deep");
    for (size_t i = 0; i < attributes.items.size(); i += 2) {
      const auto& name = unpickler_.as<std::string_view>(unpickler_.at(attributes.items[i]), "an attribute's name");
      const pickle::Value& value = unpickler_.at(attributes.items[i + 1]);
      const std::string path = prefix + std::string(name);
      if (const auto* tensor = std::get_if<PickledTensor>(&value)) {
        if (!names_.insert(path).second) unpickler_.refuse("it has the tensor ", shown_name(path), " twice");
        module_.tensors.emplace_back(path, *tensor);
      } else if (const auto* submodule = std::get_if<pickle::Dict>(&value)) {
        // Each once: modules that hold each other many times over would have no end.
        if (!modules_.insert(submodule).second) unpickler_.refuse("it has the module ", shown_name(path), " twice");
        collect(*submodule, path + ".", depth + 1);
      }
    }
  }

 private:
  const ModuleUnpickler& unpickler_;
  PickledModule& module_;
  std::set<std::string> names_;
  std::set<const pickle::Dict*> modules_;
};

// The attribute of that name; null if there is none.
const pickle::Value* find_attribute(const ModuleUnpickler& unpickler, const pickle::Dict& module,
                                    std::string_view name) {
  for (size_t i = 0; i < module.items.size(); i += 2) {
    const auto* key = std::get_if<std::string_view>(&unpickler.at(module.items[i]));
    if (key != nullptr && *key == name) return &unpickler.at(module.items[i + 1]);
  }
  return nullptr;
}

// Throws unless the module says that optp exported it, in a version that is known.
void check_origin(const ModuleUnpickler& unpickler, const pickle::Dict& module) {
  const pickle::Value* format = find_attribute(unpickler, module, "format");
  const auto* text = format == nullptr ? nullptr : std::get_if<std::string_view>(format);
  if (text == nullptr || *text != kTorchScriptFormat) {
    unpickler.refuse(
        "optp did not write this TorchScript file, and reads back only those that it wrote; save the "
        "model's weights as safetensors beside its config.json");
  }
  const pickle::Value* version = find_attribute(unpickler, module, "version");
  if (version == nullptr) unpickler.refuse("its module does not say which version it has");
  const int64_t number = unpickler.as<int64_t>(*version, "the version");
  if (number < 1 || number > kTorchScriptVersion) {
    unpickler.refuse("it has version ", number, " of optp's TorchScript files, and this program knows versions up to ",
                     kTorchScriptVersion, "; read it with a newer optp");
  }
}

}  // namespace

PickledModule read_pickled_module(std::string_view bytes, const std::string& file) {
  ModuleUnpickler unpickler(bytes, file);
  if (bytes.size() > pickle::kLongestPickle) {
    unpickler.refuse("its pickle has ", bytes.size(), " bytes, above the limit of ", pickle::kLongestPickle);
  }
  const pickle::Value& value = unpickler.run();
  const auto* root = std::get_if<pickle::Dict>(&value);
  if (root == nullptr) unpickler.refuse("it holds ", pickle::kind_of(value), ", not a module");
  check_origin(unpickler, *root);
  PickledModule module;
  const pickle::Value* config = find_attribute(unpickler, *root, "config");
  if (config == nullptr) unpickler.refuse("its module has no configuration");
  module.config = unpickler.as<std::string_view>(*config, "the configuration");
  TensorCollector(unpickler, module).collect(*root, "", 0);
  return module;
}

}  // namespace optp
