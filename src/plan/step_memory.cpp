#include "src/plan/step_memory.h"

#include <algorithm>

#include "parallel/vocab_parallel_linear_cross_entropy.h"

namespace optp {
namespace {

// Sizes in bytes of what comes up again and again. "Held" are the tokens of this rank between the tensor-parallel
// layers, all of them unless it shares them (sequence parallelism).
struct Pieces {
  explicit Pieces(const LocalSizes& s)
      : wide(std::max<int64_t>(s.element, sizeof(float))),
        held(s.held_tokens * s.hidden * s.element),
        whole(s.tokens * s.hidden * s.element),
        gathered(s.sliced() ? whole : 0),
        attention(s.tokens * s.attention * s.element),
        feed_forward(s.tokens * s.feed_forward * s.element),
        embedded(s.held_tokens * s.embedding * s.element),
        whole_embedded(s.tokens * s.embedding * s.element) {}

  int64_t wide;                      // bytes of a statistic
  int64_t held, whole;               // [held or all tokens, D]
  int64_t gathered;                  // what gathering the held tokens adds; 0 where all are held
  int64_t attention;                 // [tokens, H K]
  int64_t feed_forward;              // [tokens, local F]
  int64_t embedded, whole_embedded;  // [held or all tokens, embedding size]
};

// What a layer keeps for backward beside its input.
int64_t kept_by_layer(const OptConfig& config, const LocalSizes& s, const Pieces& p, bool checkpointed) {
  // Pre-layer-norm: the middle of the residual stream and the outputs of both norms. Post-layer-norm: both sums, which
  // are the norms' inputs, and the first one's output. Inside a checkpoint the gathered inputs of the products are kept
  // in place of two of them.
  int64_t bytes = checkpointed && s.sliced() ? p.held + 2 * p.whole : 3 * p.held;
  bytes += 2 * 2 * s.held_tokens * p.wide;  // means and deviations
  bytes += 4 * p.attention;                 // q, k, v and the result
  if (config.attention_dropout() > 0) {
    bytes += s.seq_len * s.seq_len;  // where the future is
  } else {
    bytes += s.sequences * s.heads * s.seq_len * p.wide;  // log-sums of the scores
  }
  // ReLU's result is all that it and the next product need; GELU needs its input as well.
  return bytes + (config.activation_function() == "gelu" ? 2 : 1) * p.feed_forward;
}

// Probabilities that are spelt out for a few heads at a time, with what goes before and after them
// (modules/explicit_attention.cpp).
int64_t explicit_attention_bytes(const LocalSizes& s, const Pieces& p) {
  constexpr int64_t kScores = int64_t{1} << 23;
  const int64_t square = s.seq_len * s.seq_len;
  const int64_t heads = std::clamp<int64_t>(kScores / square, 1, s.heads);
  return 4 * heads * square * p.wide;
}

}  // namespace

int64_t activation_peak_bytes(const OptConfig& config, const LocalSizes& s, bool activation_checkpointing) {
  const Pieces p(s);
  const int64_t layer = kept_by_layer(config, s, p, activation_checkpointing);
  const bool drops = config.attention_dropout() > 0;

  // Alive from the end of the layers' forward to their backward.
  int64_t kept = s.layers * (p.held + (activation_checkpointing ? 0 : layer));
  if (config.has_projections()) kept += p.embedded;              // project_in's input
  if (config.has_final_layer_norm()) kept += p.held;             // its input
  if (config.has_projections()) kept += p.held;                  // project_out's input
  kept += 2 * s.tokens * static_cast<int64_t>(sizeof(int64_t));  // rows of the two tables

  // The last layer runs: what it makes on the way and does not keep. A checkpointed one keeps nothing.
  const int64_t passing = p.feed_forward + p.held + p.whole;
  const int64_t forward = activation_checkpointing ? layer + passing : passing;

  // The loss of a chunk, while the gradients of the head and of its input grow (vocab_parallel_linear_cross_entropy.h).
  const int64_t chunk = std::min(kLossChunk, s.tokens) * s.vocabulary;
  const int64_t head_gradient = s.vocabulary * s.embedding * p.wide;
  const int64_t hidden = p.embedded + (s.sliced() ? p.whole_embedded : 0);
  int64_t loss = hidden + p.whole_embedded + head_gradient + chunk * s.element;
  if (s.element < p.wide) loss += chunk * p.wide + s.vocabulary * s.embedding * s.element;

  // Backward begins with the last layer: the gradients of its output, of the feed-forward before and after its
  // activation, of the largest weight. A checkpointed layer is there whole once more.
  const int64_t largest_weight = std::max(s.feed_forward, s.attention) * s.hidden * s.element;
  int64_t backward = p.held + p.feed_forward + std::max(p.feed_forward, p.gathered + largest_weight);
  backward = std::max(backward, 2 * p.whole_embedded + head_gradient);
  backward =
      std::max(backward, 2 * p.held + 4 * p.attention - p.feed_forward + (drops ? explicit_attention_bytes(s, p) : 0));
  if (activation_checkpointing) backward += layer + p.held;

  // The table's gradient comes last, dense.
  const int64_t end = s.vocabulary * s.embedding * s.element + 2 * p.whole_embedded - kept;

  return kept + std::max({forward, loss, backward, end});
}

}  // namespace optp
