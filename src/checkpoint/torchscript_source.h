// The executable code of an exported model: OPT's forward pass in TorchScript, a class for each kind of module.
#pragma once

#include <string>

#include "modules/opt_config.h"

namespace optp {

/// Methods of each class, in Python's syntax, as torch::jit::Module::define takes them. What a configuration decides is
/// decided in the text, so that the code of a file has no branches that its model does not take. The modules hold
/// parameters and submodules under Hugging Face's names.
///
/// Legend: B batch, P past tokens, T new tokens, D hidden_size, H heads, K head size, V vocabulary.
namespace torchscript_source {

/// `weight` and, with `bias`, `bias`.
std::string linear(bool bias);
/// `weight`.
std::string embedding();
/// `weight` and `bias`, or nothing.
std::string layer_norm(const OptConfig& config);
/// (hidden [B, T, D], past of 0 or 2 [B, H, P, K], visible [.., T, P + T] or None) -> [B, T, D] and the keys and values
/// of all P + T tokens. Visible None: causal if there is no past, everything if there is.
std::string attention(const OptConfig& config);
/// As attention's.
std::string decoder_layer(const OptConfig& config);
/// (input_ids, past, attention_mask, keep) -> [B, T, embedding size], and the keys and values if `keep`. Checks every
/// argument.
std::string decoder(const OptConfig& config);
/// forward and forward_step, as src/checkpoint/torchscript_export.h describes them.
std::string causal_lm(const OptConfig& config);

}  // namespace torchscript_source
}  // namespace optp
