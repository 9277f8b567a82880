// OptConfig to and from Hugging Face's config.json.

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include <algorithm>

#include "modules/opt_config.h"

namespace optp {
namespace {

using nlohmann::json;

// A value as messages show it: on one line, and no longer than that. Of lists and objects the kind alone: writing them
// out takes a stack as deep as they nest.
std::string shown(const json& value) {
  constexpr size_t kLongest = 100;
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  const std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

class ConfigReader {
 public:
  ConfigReader(const json& object, const std::string& source) : object_(object), source_(source) {}

  void read(const char* key, int64_t& value) const {
    const json* found = find(key);
    if (!found) return;
    TORCH_CHECK_VALUE(found->is_number_integer(), source_, ": ", key, " is ", shown(*found),
                      ", but must be an integer.");
    TORCH_CHECK_VALUE(!found->is_number_unsigned() || found->get<uint64_t>() <= uint64_t{1} << 62, source_, ": ", key,
                      " is ", shown(*found), ", which is too large.");
    value = found->get<int64_t>();
  }
  void read(const char* key, double& value) const {
    const json* found = find(key);
    if (!found) return;
    TORCH_CHECK_VALUE(found->is_number(), source_, ": ", key, " is ", shown(*found), ", but must be a number.");
    value = found->get<double>();
  }
  void read(const char* key, bool& value) const {
    const json* found = find(key);
    if (!found) return;
    TORCH_CHECK_VALUE(found->is_boolean(), source_, ": ", key, " is ", shown(*found), ", but must be true or false.");
    value = found->get<bool>();
  }
  void read(const char* key, std::string& value) const {
    const json* found = find(key);
    if (!found) return;
    TORCH_CHECK_VALUE(found->is_string(), source_, ": ", key, " is ", shown(*found), ", but must be a string.");
    value = found->get<std::string>();
    const bool is_name = value.size() <= 50 && std::all_of(value.begin(), value.end(), [](unsigned char letter) {
                           return letter >= 0x20 && letter < 0x7F;
                         });
    TORCH_CHECK_VALUE(is_name, source_, ": ", key, " is ", shown(*found), ", which is no name.");
  }

 private:
  // null counts as absent: transformers writes it for what is not set.
  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  const json& object_;
  const std::string& source_;
};

// Calls visit(key, value) for every key that OPT's config.json and OptConfig share; one list for both directions.
template <typename Config, typename Visit>
void for_each_key(Config& config, const Visit& visit) {
  visit("vocab_size", config.vocab_size());
  visit("hidden_size", config.hidden_size());
  visit("num_hidden_layers", config.num_hidden_layers());
  visit("num_attention_heads", config.num_attention_heads());
  visit("ffn_dim", config.ffn_dim());
  visit("max_position_embeddings", config.max_position_embeddings());
  visit("word_embed_proj_dim", config.word_embed_proj_dim());
  visit("do_layer_norm_before", config.do_layer_norm_before());
  visit("_remove_final_layer_norm", config.remove_final_layer_norm());
  visit("enable_bias", config.enable_bias());
  visit("layer_norm_elementwise_affine", config.layer_norm_elementwise_affine());
  visit("activation_function", config.activation_function());
  visit("dropout", config.dropout());
  visit("attention_dropout", config.attention_dropout());
  visit("init_std", config.init_std());
  visit("tie_word_embeddings", config.tie_word_embeddings());
  visit("pad_token_id", config.pad_token_id());
  visit("bos_token_id", config.bos_token_id());
  visit("eos_token_id", config.eos_token_id());
}

}  // namespace

OptConfig OptConfig::from_json(const std::string& text, const std::string& source) {
  json object;
  try {
    object = json::parse(text);
  } catch (const json::parse_error& error) {
    TORCH_CHECK_VALUE(false, source, " is not valid JSON at byte ", error.byte, ".");
  } catch (const json::exception&) {
    TORCH_CHECK_VALUE(false, source, " is not valid JSON: a number in it is too large.");
  }
  TORCH_CHECK_VALUE(object.is_object(), source, " holds no JSON object, so it is no model configuration.");
  const ConfigReader reader(object, source);
  std::string model_type = "opt";
  reader.read("model_type", model_type);
  TORCH_CHECK_VALUE(model_type == "opt", source, ": model_type is \"", model_type,
                    "\"; only \"opt\" models can be loaded.");
  OptConfig config;
  for_each_key(config, [&](const char* key, auto& value) { reader.read(key, value); });
  try {
    config.validate();
  } catch (const c10::ValueError& error) {
    TORCH_CHECK_VALUE(false, source, ": ", error.what_without_backtrace());
  }
  return config;
}

std::string OptConfig::to_json(c10::ScalarType dtype) const {
  nlohmann::ordered_json object;
  object["architectures"] = {"OPTForCausalLM"};
  object["model_type"] = "opt";
  for_each_key(*this, [&](const char* key, const auto& value) { object[key] = value; });
  object["word_embed_proj_dim"] = embedding_size();
  object["layerdrop"] = 0.0;
  object["torch_dtype"] = c10::getDtypeNames(dtype).first;
  object["use_cache"] = true;
  return object.dump(2) + "\n";
}

}  // namespace optp
