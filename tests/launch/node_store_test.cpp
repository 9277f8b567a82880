// NodeStore: what the launcher of node 0 says is taken only where it can be.
#include "src/launch/node_store.h"

#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

namespace optp {
namespace {

const std::string kPlan = R"({"nodes": 2, "id": "run"})";
const std::string kWorld = R"({"hosts": ["a", "b"], "ranks": [4, 3], "id": "run", "token": "0", "restarts": 1})";

// Node 1 of two, in whose store stands what the test sets.
class NodeStoreTest : public ::testing::Test {
 protected:
  static LaunchOptions options() {
    LaunchOptions options;
    options.nodes = 2;
    options.node_rank = 1;
    return options;
  }

  void say(const std::string& name, const std::string& text) {
    store_->set("optp_launch/" + name, std::vector<uint8_t>(text.begin(), text.end()));
  }

  // A new launcher, as each has one place.
  LaunchWorld meet(const std::string& plan, const std::string& world) {
    store_ = c10::make_intrusive<c10d::HashStore>();
    node_.emplace(store_, options(), /*serves=*/false);
    say("plan", plan);
    say("world", world);
    return node_->meet(NodeStore::Clock::now());
  }

  c10::intrusive_ptr<c10d::Store> store_;
  std::optional<NodeStore> node_;
};

std::string with(const std::string& old, const std::string& other) {
  std::string text = kWorld;
  return text.replace(text.find(old), old.size(), other);
}

TEST_F(NodeStoreTest, TakesAWorldOfItsNodes) {
  const LaunchWorld world = meet(kPlan, kWorld);
  EXPECT_EQ(world.node_rank, 1);
  EXPECT_EQ(world.hosts, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(world.ranks, (std::vector<int>{4, 3}));
  for (const std::string& other :
       {with("[4, 3]", "[4]"), with("[4, 3]", "[4, 0]"), with("[4, 3]", "[4, 3.5]"), with("[4, 3]", "[4, -1]"),
        with("[4, 3]", "[2147483647, 1]"), with("[4, 3]", "[4, 4294967297]"), with("[4, 3]", "[4, 1e30]"),
        with(R"(["a", "b"])", R"(["a"])"), with(R"("run")", R"("../run")"), with(R"("run")", R"("..")"),
        with(R"("token")", R"("secret")"), std::string("world")}) {
    EXPECT_THROW(meet(kPlan, other), std::exception) << other;
  }
  EXPECT_THROW(meet(R"({"nodes": 2e30, "id": "run"})", kWorld), std::exception);
}

TEST_F(NodeStoreTest, TakesNewsOfItsNodes) {
  meet(kPlan, kWorld);
  say("attempt_0/first_failure", "1");
  EXPECT_EQ(node_->first_failure(0), 1);
  for (const std::string other : {"2", "-1", "99999999999", "one"}) {
    say("attempt_0/first_failure", other);
    EXPECT_THROW(node_->first_failure(0), std::exception) << other;
  }
  say("stop", R"({"signal": 15, "node": 0})");
  EXPECT_EQ(node_->stop_request()->signal, 15);
  for (const std::string other : {R"({"signal": 9, "node": 0})", R"({"signal": 1e30, "node": 0})", "15"}) {
    say("stop", other);
    EXPECT_THROW(node_->stop_request(), std::exception) << other;
  }
}

}  // namespace
}  // namespace optp
