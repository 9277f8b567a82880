#include "src/checkpoint/torchscript_export.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/export.h>

#include <exception>
#include <map>
#include <memory>

#include "src/checkpoint/atomic_file.h"
#include "src/checkpoint/pickled_module.h"
#include "src/checkpoint/safetensors_header.h"
#include "src/checkpoint/torchscript_source.h"

namespace optp {
namespace {

using torch::jit::Module;

// Puts the module together. Instances of one kind share one class, so the code of a file does not grow with its layers.
class ModuleBuilder {
 public:
  ModuleBuilder(const OptConfig& config, const std::vector<std::pair<std::string, at::Tensor>>& tensors)
      : config_(config) {
    for (const auto& [name, tensor] : tensors) {
      TORCH_CHECK_VALUE(tensors_.emplace(name, tensor).second, "tensor ", shown_name(name), " comes twice.");
    }
    if (config.tie_word_embeddings()) tensors_.erase("lm_head.weight");
  }

  Module build() {
    const OptConfig& c = config_;
    Module decoder = instance("OPTDecoder");
    const std::string name = "model.decoder.";
    decoder.register_module("embed_tokens", embedding(name + "embed_tokens", c.vocab_size(), c.embedding_size()));
    decoder.register_module("embed_positions",
                            embedding(name + "embed_positions", c.max_position_embeddings() + 2, c.hidden_size()));
    if (c.has_projections()) {
      decoder.register_module("project_out", linear(name + "project_out", c.embedding_size(), c.hidden_size(), false));
      decoder.register_module("project_in", linear(name + "project_in", c.hidden_size(), c.embedding_size(), false));
    }
    if (c.has_final_layer_norm()) decoder.register_module("final_layer_norm", layer_norm(name + "final_layer_norm"));
    Module layers = instance("ModuleList");
    for (int64_t i = 0; i < c.num_hidden_layers(); ++i) {
      layers.register_module(std::to_string(i), decoder_layer(name + "layers." + std::to_string(i)));
    }
    decoder.register_module("layers", layers);
    define(decoder, torchscript_source::decoder(c));

    Module model = instance("OPTModel");
    model.register_module("decoder", decoder);
    Module root = instance("OPTForCausalLM");
    root.register_attribute("format", c10::StringType::get(), std::string(kTorchScriptFormat));
    root.register_attribute("version", c10::IntType::get(), kTorchScriptVersion);
    root.register_attribute("config", c10::StringType::get(), c.to_json());
    root.register_module("model", model);
    if (!c.tie_word_embeddings()) {
      root.register_module("lm_head", linear("lm_head", c.vocab_size(), c.embedding_size(), false));
    }
    define(root, torchscript_source::causal_lm(c));
    TORCH_CHECK_VALUE(tensors_.empty(), "the model has no place for the tensor ", shown_name(tensors_.begin()->first),
                      "; the weights do not belong to its configuration.");
    return root;
  }

 private:
  // An object of the class of that name, which is made with the first one.
  Module instance(const std::string& class_name) {
    const c10::QualifiedName name("__torch__." + class_name);
    const auto known = unit_->get_class(name);
    Module module = known ? Module(unit_, known) : Module(name, unit_);
    module.register_attribute("training", c10::BoolType::get(), false);
    return module;
  }

  // Gives the module's class its methods, if it has none yet. The attributes they use must be there.
  void define(Module& module, const std::string& source) {
    if (module.type()->methods().empty()) module.define(source);
  }

  void add_parameter(Module& module, const std::string& path, const char* name, at::IntArrayRef shape) {
    const auto found = tensors_.find(path + "." + name);
    TORCH_CHECK_VALUE(found != tensors_.end(), "the tensor ", shown_name(path + "." + name),
                      " is missing; name a folder with the weights of the whole model.");
    const at::Tensor& tensor = found->second;
    TORCH_CHECK_VALUE(tensor.sizes() == shape, "the tensor ", shown_name(found->first), " has the shape ",
                      tensor.sizes(), ", but the model needs ", shape, ".");
    if (type_ == at::ScalarType::Undefined) type_ = tensor.scalar_type();
    TORCH_CHECK_VALUE(at::isFloatingType(tensor.scalar_type()) && tensor.scalar_type() == type_, "the tensor ",
                      shown_name(found->first), " is ", tensor.scalar_type(), " and another one ", type_,
                      "; TorchScript computes in one floating-point type: convert all to the same.");
    // A view of a larger storage would put all of that into the file.
    at::Tensor whole = tensor.detach().contiguous();
    if (whole.storage().nbytes() != whole.nbytes()) whole = whole.clone();
    module.register_parameter(name, whole, /*is_buffer=*/false);
    tensors_.erase(found);
  }

  Module linear(const std::string& path, int64_t out, int64_t in, bool bias) {
    Module module = instance(bias ? "Linear" : "LinearWithoutBias");
    add_parameter(module, path, "weight", {out, in});
    if (bias) add_parameter(module, path, "bias", {out});
    define(module, torchscript_source::linear(bias));
    return module;
  }

  Module embedding(const std::string& path, int64_t rows, int64_t width) {
    Module module = instance("Embedding");
    add_parameter(module, path, "weight", {rows, width});
    define(module, torchscript_source::embedding());
    return module;
  }

  Module layer_norm(const std::string& path) {
    Module module = instance("LayerNorm");
    if (config_.layer_norm_elementwise_affine()) {
      add_parameter(module, path, "weight", {config_.hidden_size()});
      add_parameter(module, path, "bias", {config_.hidden_size()});
    }
    define(module, torchscript_source::layer_norm(config_));
    return module;
  }

  Module decoder_layer(const std::string& path) {
    const int64_t hidden = config_.hidden_size();
    const bool bias = config_.enable_bias();
    Module attention = instance("OPTAttention");
    for (const char* name : {"k_proj", "v_proj", "q_proj", "out_proj"}) {
      attention.register_module(name, linear(path + ".self_attn." + name, hidden, hidden, bias));
    }
    define(attention, torchscript_source::attention(config_));
    Module layer = instance("OPTDecoderLayer");
    layer.register_module("self_attn", attention);
    layer.register_module("self_attn_layer_norm", layer_norm(path + ".self_attn_layer_norm"));
    layer.register_module("fc1", linear(path + ".fc1", config_.ffn_dim(), hidden, bias));
    layer.register_module("fc2", linear(path + ".fc2", hidden, config_.ffn_dim(), bias));
    layer.register_module("final_layer_norm", layer_norm(path + ".final_layer_norm"));
    define(layer, torchscript_source::decoder_layer(config_));
    return layer;
  }

  OptConfig config_;
  std::shared_ptr<torch::jit::CompilationUnit> unit_ = std::make_shared<torch::jit::CompilationUnit>();
  std::map<std::string, at::Tensor> tensors_;  // those that have no place yet
  at::ScalarType type_ = at::ScalarType::Undefined;
};

}  // namespace

void write_torchscript(const std::filesystem::path& path, const OptConfig& config,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  config.validate();
  Module module;
  try {
    module = ModuleBuilder(config, tensors).build();
  } catch (const c10::ValueError& error) {
    TORCH_CHECK_VALUE(false, "cannot write ", path.string(), ": ", error.what_without_backtrace());
  }
  AtomicFile file(path);
  // LibTorch's writer finishes the archive in a destructor, where an exception would end the process.
  std::exception_ptr failure;
  torch::jit::ExportModule(module, [&](const void* data, size_t size) {
    try {
      if (!failure) file.write(data, size);
    } catch (...) {
      failure = std::current_exception();
    }
    return size;
  });
  if (failure) std::rethrow_exception(failure);
  file.commit();
}

}  // namespace optp
