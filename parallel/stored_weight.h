// A weight matrix as it is kept in memory: in the type that is computed with, or in fewer bits, so that decoding, which
// reads every weight once a token, reads fewer bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <utility>

#include "parallel/process_group.h"

namespace optp {

/// W [N, K]. Row n is the weights of output channel n. Kept as
///
///   the activations' own type  `values` alone
///   bfloat16                   `values`, each rounded to the nearest bfloat16
///   int8                       `values` from -127 to 127 and one `scale` an output channel: W[n][k] = scale[n]
///                              values[n][k], scale[n] = max_k |W[n][k]| / 127
///
/// The last two serve float32 activations (weight-only quantisation) and inference alone: they have no gradient.
struct StoredWeight {
  // NOLINTNEXTLINE(google-explicit-constructor): a plain tensor is a weight
  StoredWeight(at::Tensor values_, at::Tensor scale_ = {}) : values(std::move(values_)), scale(std::move(scale_)) {}

  /// Whether the values have fewer bits than activations of type `activations`.
  bool narrower_than(at::ScalarType activations) const { return values.scalar_type() != activations; }
  /// Output channels [first, first + count) in float32, [count, K]; of `out` [>= count, K] the first rows are used.
  at::Tensor widened(int64_t first, int64_t count, const at::Tensor& out) const;
  /// Rows `ids` [n] int64 in float32, [n, K].
  at::Tensor rows(const at::Tensor& ids) const;

  at::Tensor values;  ///< [N, K]
  at::Tensor scale;   ///< [N] float32; undefined unless the values are int8
};

/// A layer whose weight can be kept in fewer bits.
class NarrowableLayer {
 public:
  virtual ~NarrowableLayer() = default;
  /// Turns the layer's float32 `weight` into `type`, kBFloat16 or kChar (int8), and frees it. From then on the layer
  /// computes without gradients. Collective over the layer's group: a channel's scale is that of the whole channel,
  /// also where the ranks hold parts of it, so int8 weights are the same numbers at every degree.
  virtual void narrow_weight(at::ScalarType type) = 0;
};

/// Narrows a float32 parameter [N, K] in place: afterwards `weight` has the values and `scale` is set. If `group` is
/// given, its ranks hold the columns of each channel together ("<site>": all_reduce of the largest weights).
/// Throws c10::ValueError for weights that are not finite and for other types.
void narrow_weight_(at::Tensor& weight, at::Tensor& scale, at::ScalarType type, const ProcessGroup* group,
                    std::string_view site);

}  // namespace optp
