// Check "forward", the golden test: same weights, same input, same logits.
#include <ATen/ATen.h>

#include <algorithm>

#include "src/log.h"
#include "src/verify/bfloat16.h"
#include "src/verify/checks.h"

namespace optp {
namespace {

struct ForwardCase {
  std::string what;
  Batch batch;
};

std::vector<ForwardCase> forward_cases(const Session& session) {
  const int64_t sequences = session.options().batch_size, tokens = session.options().seq_len;
  std::vector<ForwardCase> cases;
  const auto add = [&](int64_t b, int64_t t, int64_t left, int64_t right, const std::string& note) {
    ForwardCase entry{std::to_string(b) + " x " + std::to_string(t) + " tokens" + note,
                      session.batch(static_cast<int64_t>(cases.size()), b, t)};
    // Every second sequence is padded, so that a batch mixes both kinds.
    for (int64_t row = 0; row < b; row += 2) {
      if (left > 0) entry.batch.attention_mask[row].slice(0, 0, left).zero_();
      if (right > 0) entry.batch.attention_mask[row].slice(0, t - right).zero_();
    }
    cases.push_back(std::move(entry));
  };
  add(1, 1, 0, 0, "");
  if (tokens > 5) add(1, 5, 0, 0, "");
  if (tokens >= 16) add(2 * sequences, tokens / 4, 0, 0, "");
  add(sequences, tokens, 0, 0, "");
  if (tokens >= 4) {
    add(sequences, tokens, tokens / 4, 0, ", left padding");
    add(sequences, tokens, 0, tokens / 4, ", right padding");
  }
  return cases;
}

// Logs how far every layer's output is from the reference's and names the first that is beyond `tolerance`.
void trace_layers(Session& session, const Batch& batch, double tolerance) {
  at::NoGradGuard no_grad;
  OptForwardOptions options = session.forward_options(batch.attention_mask);
  options.gather_logits = false;
  options.output_hidden_states = true;
  const auto actual = session.model()->forward(batch.input_ids, options).hidden_states;
  std::vector<at::Tensor> expected(actual.size());
  session.with_reference([&](OptReferenceImpl& reference) {
    expected = reference.forward(batch.input_ids, batch.attention_mask).hidden_states;
  });
  std::vector<Difference> differences(actual.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    differences[i].add(actual[i], session.from_reference(expected[i], actual[i].sizes()));
  }
  differences = max_over_ranks(differences, session.world());
  const auto name = [&](size_t i) { return i == 0 ? std::string("embeddings") : "layer " + std::to_string(i - 1); };
  bool diverged = false;
  for (size_t i = 0; i < differences.size(); ++i) {
    const bool beyond = !(differences[i].max_abs <= tolerance * std::max(1.0, differences[i].max_expected));
    log_line(LogLevel::debug, "  " + name(i) + ": largest difference " + short_number(differences[i].max_abs) +
                                  (beyond && !diverged ? "  <- first that diverges" : ""));
    if (beyond && !diverged) {
      diverged = true;
      log_line(LogLevel::debug, "  first divergence: " + name(i));
    }
  }
}

}  // namespace

Measurements check_forward(Session& session) {
  at::NoGradGuard no_grad;
  session.reset_weights();
  const double tolerance = session.in_bfloat16() ? 1.0 / 32 : session.options().forward_tolerance;
  const bool own_weights = session.options().source.path.has_value();
  Measurements rows;
  bool traced = !session.options().trace_layers;
  for (const auto& [what, batch] : forward_cases(session)) {
    const at::Tensor actual =
        session.model()->forward(batch.input_ids, session.forward_options(batch.attention_mask)).logits;
    at::Tensor expected;
    session.with_reference([&](OptReferenceImpl& reference) {
      expected = reference.forward(batch.input_ids, batch.attention_mask).logits;
    });
    const std::vector<int64_t> shape{batch.input_ids.size(0), batch.input_ids.size(1), session.config().vocab_size()};
    expected = session.from_reference(expected, shape);

    // Padding positions mean nothing; they only have to be finite.
    const at::Tensor real = batch.attention_mask.to(at::kBool);
    std::vector<Difference> difference(1);
    difference[0].add(actual.index({real}), expected.index({real}));
    difference = max_over_ranks(difference, session.world());
    const bool well_formed = actual.sizes() == at::IntArrayRef(shape) &&
                             actual.scalar_type() == session.options().type && actual.isfinite().all().item<bool>() &&
                             expected.isfinite().all().item<bool>();
    const bool all_well_formed = max_over_ranks(well_formed ? 0 : 1, session.world()) == 0;

    const bool relative = own_weights && difference[0].max_expected > 1;
    Measurement row = measure(
        "logits, " + what, difference[0], relative ? tolerance * difference[0].max_expected : tolerance,
        relative
            ? "limit " + short_number(tolerance) + " x the largest logit, " + short_number(difference[0].max_expected)
            : "");
    if (session.in_bfloat16()) {
      at::Tensor rounded;
      session.with_bfloat16_reference([&](OptReferenceImpl& reference) {
        rounded = reference.forward(batch.input_ids, batch.attention_mask).logits.index({real});
      });
      row = measure_bfloat16_logits(session, "logits, " + what, actual.index({real}), expected.index({real}), rounded);
    }
    if (!all_well_formed) {
      row.passed = false;
      row.detail = "shape or dtype differ, or there are NaN or Inf";
    }
    rows.push_back(row);
    const bool longest = batch.input_ids.size(1) == session.options().seq_len;
    if (!traced && longest) {
      trace_layers(session, batch, tolerance);
      traced = true;
    }
  }
  return rows;
}

}  // namespace optp
