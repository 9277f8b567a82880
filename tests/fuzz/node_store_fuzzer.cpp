// What the launcher of node 0 tells that of node 1: the plan, the world, who failed first, the outcomes of both, the
// stop, with a zero byte between. It is refused with any exception, or every node that it names is there.
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <csignal>

#include "src/launch/node_store.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

constexpr int kNodes = 2;

template <typename Listen>
void listen(const Listen& heard) {
  try {
    heard();
  } catch (const std::exception&) {  // NodeLink makes a sentence of it
  }
}

void check_world(const LaunchWorld& world) {
  expect(world.node_rank == 1 && world.hosts.size() == kNodes && world.ranks.size() == kNodes);
  expect(world.ranks[0] >= 1 && world.ranks[1] >= 1 && int64_t{world.ranks[0]} + world.ranks[1] <= INT32_MAX);
  expect(world.run_id.find('/') == std::string::npos && world.run_id != "..");
}

void check_news(NodeStore& store) {
  listen([&] {
    const std::optional<int> node = store.first_failure(0);
    expect(!node || (*node >= 0 && *node < kNodes));
  });
  listen([&] { expect(store.outcomes(0).size() == kNodes); });
  listen([&] {
    const int signal = store.stop_request()->signal;
    expect(signal == SIGINT || signal == SIGTERM || signal == SIGHUP);
  });
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto texts = c10::make_intrusive<c10d::HashStore>();
  for (const char* name :
       {"plan", "world", "attempt_0/first_failure", "attempt_0/outcome_0", "attempt_0/outcome_1", "stop"}) {
    const std::string_view text = optp::take_part(rest);
    texts->set(std::string("optp_launch/") + name, {text.begin(), text.end()});
  }
  optp::LaunchOptions options;
  options.nodes = optp::kNodes;
  options.node_rank = 1;
  optp::NodeStore store(texts, options, /*serves=*/false);
  optp::listen([&] {
    optp::check_world(store.meet(optp::NodeStore::Clock::now()));
    optp::check_news(store);
  });
  return 0;
}
