#include "src/verify/checks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace optp {
namespace {

using CheckFunction = Measurements (*)(Session&);

const std::vector<std::pair<std::string, CheckFunction>>& all_checks() {
  static const std::vector<std::pair<std::string, CheckFunction>> all = {
      {"forward", check_forward},       {"backward", check_backward}, {"gradients", check_gradients},
      {"optimizers", check_optimizers}, {"memory", check_memory},     {"stability", check_stability},
      {"end-to-end", check_end_to_end},
  };
  return all;
}

}  // namespace

const std::vector<std::string>& check_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const auto& [name, function] : all_checks()) all.push_back(name);
    return all;
  }();
  return names;
}

CheckResult run_check(const std::string& name, Session& session) {
  const auto found =
      std::find_if(all_checks().begin(), all_checks().end(), [&](const auto& entry) { return entry.first == name; });
  TORCH_CHECK_VALUE(found != all_checks().end(), "\"", name, "\" is no check; --list-checks prints them.");
  CheckResult result;
  result.name = name;
  const auto begin = std::chrono::steady_clock::now();
  try {
    result.measurements = found->second(session);
  } catch (const c10::DistError&) {
    throw;
  } catch (const c10::Error& error) {
    result.error = error.what_without_backtrace();
  } catch (const std::exception& error) {
    result.error = error.what();
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

Measurement measure(std::string what, const Difference& difference, double limit, std::string detail) {
  Measurement row = measure(std::move(what), difference.max_abs, limit, std::move(detail));
  row.max_abs_difference = difference.max_abs;
  row.max_rel_difference = difference.max_rel();
  return row;
}

Measurement measure(std::string what, double value, double limit, std::string detail) {
  Measurement row;
  row.what = std::move(what);
  row.value = value;
  row.limit = limit;
  row.passed = value <= limit;  // a NaN fails
  row.detail = std::move(detail);
  return row;
}

Measurement measure_loss(std::string what, double actual, double expected, double limit) {
  Difference difference;
  difference.max_abs = std::abs(actual - expected);
  difference.max_expected = std::abs(expected);
  Measurement row = measure(std::move(what), difference, limit,
                            "sharded " + full_number(actual) + ", reference " + full_number(expected));
  row.passed = row.passed && std::isfinite(actual) && std::isfinite(expected);
  return row;
}

int64_t count_unequal_replicas(Session& session, bool gradients) {
  std::vector<double> unequal;
  for (size_t i = 0; i < session.shards().size(); ++i) {
    const NamedShard& entry = session.shards()[i];
    // A shard has replicas only in the other copies of the model.
    const ProcessGroup& group = entry.shard.replicated() ? session.world() : session.mesh().data();
    if (group.size() == 1) continue;
    const at::Tensor mine = gradients ? session.gradient(i) : entry.tensor.detach();
    if (!mine.defined()) {  // every rank sees the same: the graph is the same everywhere
      unequal.push_back(1);
      continue;
    }
    at::Tensor first = mine.clone();
    group.broadcast_(first, 0, "verify replicas");
    unequal.push_back(first.equal(mine) ? 0 : 1);
  }
  unequal = max_over_ranks(unequal, session.world());
  return std::count(unequal.begin(), unequal.end(), 1.0);
}

}  // namespace optp
