// The comparison of gradients that several checks share.
#include <algorithm>
#include <cmath>

#include "src/verify/bfloat16.h"
#include "src/verify/checks.h"

namespace optp {
namespace {

constexpr double kGradientLimit = 1e-5;
// What float64 must show before a difference in float32 counts as rounding, and how large that may then be.
constexpr double kExactLimit = 1e-9;
constexpr double kLargestRounding = 1e-2;

struct GradientComparison {
  Difference worst;  // of the tensor that is furthest apart, relative to its largest gradient
  std::string name;  // that tensor
  Difference zero;   // of the gradients that are zero in exact arithmetic, relative to the model's largest gradient
  size_t compared = 0;
  size_t zeros = 0;
};

GradientComparison compare_all(Session& session) {
  const std::vector<Difference> differences = session.compare_gradients();
  GradientComparison result;
  for (size_t i = 0; i < differences.size(); ++i) {
    const std::string& name = session.shards()[i].name;
    result.zero.max_expected = std::max(result.zero.max_expected, differences[i].max_expected);
    if (has_zero_gradient(name)) {
      result.zero.max_abs = std::max(result.zero.max_abs, differences[i].max_abs);
      ++result.zeros;
    } else if (++result.compared == 1 || !(differences[i].max_rel() <= result.worst.max_rel())) {
      result.worst = differences[i];
      result.name = name;
    }
  }
  return result;
}

Measurement relative_row(std::string what, const Difference& difference, double limit, std::string detail) {
  Measurement row = measure(std::move(what), difference.max_rel(), limit, std::move(detail));
  row.max_abs_difference = difference.max_abs;
  row.max_rel_difference = difference.max_rel();
  return row;
}

}  // namespace

bool has_zero_gradient(const std::string& parameter) { return parameter.ends_with(".k_proj.bias"); }

Measurements measure_gradients(Session& session, const Batch& batch) {
  if (session.in_bfloat16()) return measure_bfloat16_gradients(session, batch);
  const GradientComparison result = compare_all(session);
  const char* what = "gradients, relative to each tensor's largest";
  const std::string detail = std::to_string(result.compared) + " tensors; furthest apart: " + result.name;
  Measurements rows{relative_row(what, result.worst, kGradientLimit, detail)};
  const bool doubtful = !rows[0].passed && result.worst.max_rel() <= kLargestRounding;
  if (doubtful && session.options().type == at::kFloat && session.options().fault.empty()) {
    // Rounding decides the derivative of a ReLU whose input is next to 0, and that reaches every gradient before it.
    // The same step in float64, where such an input would have to be a billion times closer, tells rounding from error.
    VerifyOptions options = session.options();
    options.type = at::kDouble;
    Session exact(options, session.mesh());
    exact.reset_weights();
    exact.model_loss(batch);
    exact.reference_loss(batch);
    const GradientComparison free = compare_all(exact);
    rows = {relative_row("gradients of the same step in float64", free.worst, kExactLimit,
                         "decides, since in float32 rounding decides the side of a ReLU; furthest apart: " + free.name),
            relative_row(what, result.worst, kLargestRounding, detail + "; beyond 1e-05 because of ReLUs next to 0")};
  }
  if (result.zeros > 0) {
    rows.push_back(relative_row(
        "gradients that are zero but for rounding", result.zero, kGradientLimit,
        std::to_string(result.zeros) + " tensors (k_proj.bias), relative to the model's largest gradient"));
  }
  return rows;
}

}  // namespace optp
