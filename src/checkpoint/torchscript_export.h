// A model as one TorchScript file: weights with the code that runs them, for host programs that have LibTorch or
// PyTorch and no optp. TorchScript is in maintenance, so this is an export; models are kept as safetensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "modules/opt_config.h"

namespace optp {

/// Writes a file that torch.jit.load in Python and torch::jit::load in C++ take. Its module has
///
///   forward(input_ids, attention_mask: Optional[Tensor] = None) -> Tensor
///       ids [B, T] int64, mask [B, T] of 0 and 1, padding on either side -> logits [B, T, V]
///   forward_step(input_ids, past: List[Tensor], attention_mask: Optional[Tensor] = None) -> Tuple[Tensor,
///   List[Tensor]]
///       the new ids [B, T], keys and values of the P tokens before them (an empty list at the start), mask [B, P + T]
///       -> logits [B, T, V], and keys and values of all P + T: layer by layer, key then value, [B, heads, P + T,
///       head_dim]
///
/// of any B and T. Both check their arguments; what is wrong is an exception with a sentence. Logits at masked
/// positions are finite and otherwise unspecified. The attribute `config` is the text of config.json, `format` and
/// `version` say what the file is (pickled_module.h), and torchscript_file.h reads it back. Parameters carry Hugging
/// Face's names and no gradient; a tied head is stored once, as the embedding.
///
/// `tensors`: every parameter of the model, whole, by its name, all of one floating-point dtype, which is the dtype of
/// the arithmetic too. `lm_head.weight` beside a tied head is ignored. Throws c10::ValueError, and leaves what was at
/// `path`, when a tensor is missing, unknown or of another shape or dtype, and when the file cannot be written.
void write_torchscript(const std::filesystem::path& path, const OptConfig& config,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors);

}  // namespace optp
