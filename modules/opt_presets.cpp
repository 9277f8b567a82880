// The published sizes: Zhang et al. (2022), table 1, and the configurations published with the weights.

#include <c10/util/Exception.h>

#include <utility>

#include "modules/opt_config.h"

namespace optp {
namespace {

OptConfig preset_of(int64_t layers, int64_t hidden, int64_t heads) {
  // Fresh weights as OPT was trained: N(0, 0.006) (Zhang et al., section 2.2).
  return OptConfig()
      .num_hidden_layers(layers)
      .hidden_size(hidden)
      .num_attention_heads(heads)
      .ffn_dim(4 * hidden)
      .init_std(0.006);
}

const std::vector<std::pair<std::string, OptConfig (*)()>>& presets() {
  static const std::vector<std::pair<std::string, OptConfig (*)()>> all = {
      {"opt-tiny", &OptConfig::opt_tiny}, {"opt-125m", &OptConfig::opt_125m}, {"opt-350m", &OptConfig::opt_350m},
      {"opt-1.3b", &OptConfig::opt_1_3b}, {"opt-2.7b", &OptConfig::opt_2_7b}, {"opt-6.7b", &OptConfig::opt_6_7b},
      {"opt-13b", &OptConfig::opt_13b},   {"opt-30b", &OptConfig::opt_30b},   {"opt-66b", &OptConfig::opt_66b},
      {"opt-175b", &OptConfig::opt_175b},
  };
  return all;
}

}  // namespace

OptConfig OptConfig::opt_125m() { return preset_of(12, 768, 12); }
OptConfig OptConfig::opt_350m() { return preset_of(24, 1024, 16).word_embed_proj_dim(512).do_layer_norm_before(false); }
OptConfig OptConfig::opt_1_3b() { return preset_of(24, 2048, 32); }
OptConfig OptConfig::opt_2_7b() { return preset_of(32, 2560, 32); }
OptConfig OptConfig::opt_6_7b() { return preset_of(32, 4096, 32); }
OptConfig OptConfig::opt_13b() { return preset_of(40, 5120, 40); }
OptConfig OptConfig::opt_30b() { return preset_of(48, 7168, 56); }
OptConfig OptConfig::opt_66b() { return preset_of(64, 9216, 72); }
OptConfig OptConfig::opt_175b() { return preset_of(96, 12288, 96); }
OptConfig OptConfig::opt_tiny() { return preset_of(2, 128, 4).max_position_embeddings(512); }

const std::vector<std::string>& OptConfig::preset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const auto& [name, make] : presets()) all.push_back(name);
    return all;
  }();
  return names;
}

OptConfig OptConfig::preset(const std::string& name) {
  std::string known;
  for (const auto& [preset_name, make] : presets()) {
    if (preset_name == name) return make();
    known += (known.empty() ? "" : ", ") + preset_name;
  }
  TORCH_CHECK_VALUE(false, "\"", name, "\" is no model: use a folder, or one of ", known, ".");
}

}  // namespace optp
