#include "src/launch/node_store.h"

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <algorithm>
#include <climits>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>

#include "parallel/host_process.h"
#include "parallel/rendezvous.h"
#include "src/launch/rank_environment.h"

namespace optp {
namespace {

using nlohmann::json;

constexpr auto kBeatInterval = std::chrono::seconds(1);
constexpr auto kFarewellTime = std::chrono::seconds(3);
constexpr auto kPollInterval = std::chrono::milliseconds(50);

// Apart from the keys of ranks, which do not begin so.
std::string own_key(const std::string& name) { return "optp_launch/" + name; }

std::string attempt_key(int attempt, const std::string& name) {
  return own_key("attempt_" + std::to_string(attempt) + "/" + name);
}

std::string node_key(const std::string& name, int node) { return own_key(name + "/" + std::to_string(node)); }

// Text of ranks need not be UTF-8.
std::string dumped(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

json to_json(const LaunchWorld& world) {
  return {{"hosts", world.hosts},
          {"ranks", world.ranks},
          {"id", world.run_id},
          {"token", world.run_token},
          {"restarts", world.max_restarts}};
}

// What no launcher says is refused as text that is no JSON is; NodeLink makes a sentence of either.
void check_said(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

// json would make an int of any number.
int whole_number(const json& value) {
  check_said(value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() <= INT_MAX,
             "it has another number where a whole one from 0 on belongs");
  return value.get<int>();
}

void check_world(const LaunchWorld& world, int nodes) {
  const auto count = static_cast<size_t>(nodes);
  check_said(world.hosts.size() == count && world.ranks.size() == count, "its run has other nodes");
  check_said(*std::min_element(world.ranks.begin(), world.ranks.end()) >= 1 &&
                 std::accumulate(world.ranks.begin(), world.ranks.end(), int64_t{0}) <= INT_MAX,
             "its run has too few or too many ranks");
  check_said(is_run_id(world.run_id), "its run's name is no folder's");
}

LaunchWorld world_from(const std::string& text) {
  const json value = json::parse(text);
  LaunchWorld world;
  world.hosts = value.at("hosts").get<std::vector<std::string>>();
  for (const json& ranks : value.at("ranks")) world.ranks.push_back(whole_number(ranks));
  world.run_id = value.at("id").get<std::string>();
  world.run_token = value.at("token").get<std::string>();
  world.max_restarts = whole_number(value.at("restarts"));
  return world;
}

NodeOutcome outcome_from(const std::string& text) {
  const json value = json::parse(text);
  return {.status = whole_number(value.at("status")),
          .explains = value.at("explains").get<bool>(),
          .sentence = value.at("sentence").get<std::string>(),
          .last_lines = value.at("last_lines").get<std::vector<std::string>>()};
}

}  // namespace

NodeStore::NodeStore(c10::intrusive_ptr<c10d::Store> store, const LaunchOptions& options, bool serves)
    : store_(std::move(store)), options_(options), serves_(serves) {}

NodeStore::~NodeStore() = default;

LaunchWorld NodeStore::meet(Clock::time_point deadline) {
  world_ = serves_ ? meet_others(deadline) : join(deadline);
  check_world(world_, options_.nodes);
  hearts_.assign(world_.hosts.size(), {0, Clock::now()});
  return world_;
}

// Node 0: says what the run is, waits for the others, and tells all who is there.
LaunchWorld NodeStore::meet_others(Clock::time_point deadline) {
  LaunchWorld world{.hosts = {host_name()},
                    .ranks = {options_.ranks},
                    .run_id = options_.run_id.empty() ? random_run_id() : options_.run_id,
                    .run_token = random_run_token(),
                    .max_restarts = options_.max_restarts};
  take_place(0);
  claim_store(*store_, world.run_token);
  store_->set(own_key("plan"), dumped({{"nodes", options_.nodes}, {"id", world.run_id}}));
  for (int node = 1; node < options_.nodes; ++node) {
    const json joined =
        json::parse(wait_for(node_key("node", node), deadline, "the launcher of node " + std::to_string(node)));
    world.hosts.push_back(joined.at("host").get<std::string>());
    world.ranks.push_back(whole_number(joined.at("ranks")));
  }
  store_->set(own_key("world"), dumped(to_json(world)));
  return world;
}

LaunchWorld NodeStore::join(Clock::time_point deadline) {
  const json plan = json::parse(wait_for(own_key("plan"), deadline, "the launcher of node 0"));
  const int nodes = whole_number(plan.at("nodes"));
  const auto run_id = plan.at("id").get<std::string>();
  TORCH_CHECK_VALUE(nodes == options_.nodes, "--nnodes is ", options_.nodes, ", but the launcher at ", place(),
                    " was started with ", nodes, ": give the same number on every host");
  TORCH_CHECK_VALUE(options_.run_id.empty() || options_.run_id == run_id, "--rdzv-id is ", options_.run_id,
                    ", but the launcher at ", place(), " runs ", run_id,
                    ": give the same on every host, and each run a port of its own");
  const int node = options_.node_rank ? *options_.node_rank : static_cast<int>(store_->add(own_key("arrivals"), 1));
  TORCH_CHECK_VALUE(node < nodes, "the run at ", place(), " has all its ", nodes,
                    " nodes: start one launcher on each host, or give a larger --nnodes");
  take_place(node);
  store_->set(node_key("node", node), dumped({{"host", host_name()}, {"ranks", options_.ranks}}));
  LaunchWorld world = world_from(wait_for(own_key("world"), deadline, "the launchers of all nodes"));
  world.node_rank = node;
  return world;
}

void NodeStore::take_place(int node_rank) {
  TORCH_CHECK_VALUE(store_->add(node_key("taken", node_rank), 1) == 1, "--node-rank is ", node_rank,
                    ", which another launcher at ", place(), " has: give each host a number of its own");
}

std::optional<std::string> NodeStore::find(const std::string& key) {
  if (!store_->check({key})) return std::nullopt;
  return store_->get_to_str(key);
}

// Polls, because a wait of TCPStore that ends without success prints warnings.
std::string NodeStore::wait_for(const std::string& key, Clock::time_point deadline, const std::string& what) {
  std::optional<std::string> value;
  while (!(value = find(key))) {
    TORCH_CHECK(Clock::now() < deadline, "waited ", std::chrono::duration<double>(options_.timeout).count(), " s at ",
                place(), " for ", what, " of ", options_.nodes,
                ": start optp launch on every host, with the same --nnodes and --master-addr, or give a longer "
                "--timeout");
    std::this_thread::sleep_for(kPollInterval);
  }
  return *value;
}

std::string NodeStore::place() const { return c10::str(options_.master_addr, " port ", options_.master_port); }

std::string NodeStore::node_name(int node) const {
  return c10::str("node ", node, " (host ", world_.hosts[static_cast<size_t>(node)], ")");
}

std::string NodeStore::beat() {
  const std::string lost_key = own_key("lost");
  if (const auto lost = find(lost_key)) return *lost;
  const Clock::time_point now = Clock::now();
  if (now - last_beat_ < kBeatInterval) return "";
  last_beat_ = now;
  store_->add(node_key("beats", world_.node_rank), 1);
  if (!serves_) return "";
  for (size_t node = 1; node < hearts_.size(); ++node) {
    const int64_t beats = store_->add(node_key("beats", static_cast<int>(node)), 0);
    Heart& heart = hearts_[node];
    if (beats != heart.beats) heart = {beats, now};
    if (now - heart.heard < kNodeTimeout) continue;
    const std::string lost =
        c10::str(node_name(static_cast<int>(node)), " has been silent for ", std::chrono::seconds(kNodeTimeout).count(),
                 " s: its launcher has died or the network between the hosts is cut");
    store_->set(lost_key, lost);
    return lost;
  }
  return "";
}

bool NodeStore::start_attempt(int attempt) {
  const std::string key = attempt_key(attempt, "started");
  if (!serves_) return store_->check({key});
  // Programs that use the store know nothing of attempts, as under torchrun, which gives each a new store.
  if (attempt > 0) {
    for (const std::string& old : store_->listKeys()) {
      if (!old.starts_with(own_key(""))) store_->deleteKey(old);
    }
  }
  store_->set(key, "yes");
  return true;
}

void NodeStore::report_failure(int attempt) {
  if (store_->add(attempt_key(attempt, "failures"), 1) == 1) {
    store_->set(attempt_key(attempt, "first_failure"), std::to_string(world_.node_rank));
  }
}

std::optional<int> NodeStore::first_failure(int attempt) {
  const auto node = find(attempt_key(attempt, "first_failure"));
  if (!node) return std::nullopt;
  const int first = std::stoi(*node);
  check_said(first >= 0 && first < options_.nodes, "its first failure is on no node");
  return first;
}

void NodeStore::report_outcome(int attempt, const NodeOutcome& outcome) {
  store_->set(attempt_key(attempt, "outcome_" + std::to_string(world_.node_rank)),
              dumped({{"status", outcome.status},
                      {"explains", outcome.explains},
                      {"sentence", outcome.sentence},
                      {"last_lines", outcome.last_lines}}));
}

std::vector<NodeOutcome> NodeStore::outcomes(int attempt) {
  std::vector<std::string> keys;
  for (size_t node = 0; node < world_.hosts.size(); ++node) {
    keys.push_back(attempt_key(attempt, "outcome_" + std::to_string(node)));
  }
  std::vector<NodeOutcome> result;
  if (!store_->check(keys)) return result;
  for (const std::string& key : keys) result.push_back(outcome_from(store_->get_to_str(key)));
  return result;
}

void NodeStore::report_stop(int signal) {
  if (store_->add(own_key("stops"), 1) == 1) {
    store_->set(own_key("stop"), dumped({{"signal", signal}, {"node", world_.node_rank}}));
  }
}

std::optional<StopRequest> NodeStore::stop_request() {
  const auto text = find(own_key("stop"));
  if (!text) return std::nullopt;
  const json value = json::parse(*text);
  const StopRequest stop{whole_number(value.at("signal")), whole_number(value.at("node"))};
  check_said(std::count(kStopSignals.begin(), kStopSignals.end(), stop.signal) == 1, "its signal stops no run");
  return stop;
}

void NodeStore::leave() {
  const std::string key = own_key("left");
  store_->add(key, 1);
  const Clock::time_point deadline = Clock::now() + kFarewellTime;
  while (serves_ && store_->add(key, 0) < static_cast<int64_t>(world_.hosts.size()) && Clock::now() < deadline) {
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace optp
