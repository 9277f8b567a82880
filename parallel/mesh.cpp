#include "parallel/mesh.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <csignal>
#include <exception>
#include <future>
#include <thread>
#include <utility>

#include "parallel/shared_memory_backend.h"
#include "parallel/vector_math.h"

namespace optp {
namespace {

constexpr std::chrono::milliseconds kLook(200);  // how long to wait before looking who has ended

using BackendPtr = c10::intrusive_ptr<c10d::Backend>;

// Gloo writes without MSG_NOSIGNAL: a peer that has just gone would end this process without a word.
void ignore_lost_readers() {
  struct sigaction action{};
  sigaction(SIGPIPE, nullptr, &action);
  if (action.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
}

BackendPtr open_gloo(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                     const Mesh::Options& mesh) {
  ignore_lost_readers();
  auto options = c10d::ProcessGroupGloo::Options::create(mesh.timeout);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(mesh.address));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(rank), static_cast<int>(size), options);
}

// `why_not`: set where `comm` is automatic and the group cannot share memory.
ProcessGroup connect(const c10::intrusive_ptr<c10d::Store>& store, const std::string& name, int64_t rank, int64_t size,
                     const Mesh::Options& mesh, std::string& why_not) {
  if (size == 1) return {};
  std::string reason;
  try {
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(name, store);
    prefixed->setTimeout(mesh.timeout);
    BackendPtr backend;
    if (mesh.comm != Mesh::Comm::gloo) {
      backend = SharedMemoryBackend::open(c10::make_intrusive<c10d::PrefixStore>("shm", prefixed), rank, size,
                                          mesh.timeout, reason);
    }
    if (!backend && mesh.comm != Mesh::Comm::shared_memory) {
      why_not = reason;
      backend = open_gloo(prefixed, rank, size, mesh);
    }
    if (backend) return {backend, name.substr(0, name.find('/'))};
  } catch (const std::exception& error) {
    C10_THROW_ERROR(
        DistBackendError,
        c10::str("rank ", rank, " of ", size, " of the ", name, " group could not connect over ", mesh.address,
                 " within ", mesh.timeout.count() / 1000, " s; check that all ranks were started: ", error.what()));
  }
  C10_THROW_ERROR(DistBackendError, c10::str("the ", name, " group cannot use shared memory: ", reason,
                                             "; let it use Gloo (--comm auto or --comm gloo)."));
}

class UnconnectedBackend final : public c10d::Backend {
 public:
  using Backend::Backend;
  const std::string getBackendName() const override { return "unconnected"; }  // NOLINT: so declared
};

}  // namespace

Mesh Mesh::unconnected(int64_t tp, int64_t rank) {
  TORCH_CHECK_VALUE(tp >= 1 && rank >= 0 && rank < tp, "there is no rank ", rank, " of ", tp, ".");
  resolve_vector_math();
  Mesh mesh;
  mesh.tensor_ = {c10::make_intrusive<UnconnectedBackend>(static_cast<int>(rank), static_cast<int>(tp)), "tensor"};
  mesh.world_ = mesh.tensor_;
  return mesh;
}

Mesh::Mesh(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t world_size, const Options& options) {
  const auto [tp, dp] = std::pair{options.tp, options.dp};
  TORCH_CHECK_VALUE(tp >= 1 && dp >= 1 && tp * dp == world_size, "a mesh of tp ", tp, " x dp ", dp, " needs ", tp * dp,
                    " ranks, but there are ", world_size, ": start as many ranks as tp x dp.");
  TORCH_CHECK_VALUE(rank >= 0 && rank < world_size, "rank ", rank, " is outside a world of ", world_size, ".");
  resolve_vector_math();
  RankWatch::Members members;
  for (int64_t other = 0; other < world_size; ++other) {
    members[0].push_back(other);
    if (other / tp == rank / tp) members[1].push_back(other);
    if (other % tp == rank % tp) members[2].push_back(other);
  }
  if (world_size > 1) {
    watch_ = std::make_shared<RankWatch>(c10::make_intrusive<c10d::PrefixStore>("watch", store), rank, members,
                                         options.serves_store);
  }
  // Connecting waits for every rank as long as the time limit is, even for one that has ended, so a thread that can be
  // left behind does it.
  std::packaged_task<Mesh()> meet([store, rank, world_size, options] {
    const auto [columns, rows] = std::pair{options.tp, options.dp};
    Mesh mesh;
    std::string& why_not = mesh.why_not_shared_memory_;
    mesh.world_ = connect(store, "world", rank, world_size, options, why_not);
    mesh.tensor_ = connect(store, c10::str("tensor/", rank / columns), rank % columns, columns, options, why_not);
    mesh.data_ = connect(store, c10::str("data/", rank % columns), rank / columns, rows, options, why_not);
    // The store may end with rank 0's use of it, and some ranks may still be meeting each other there.
    mesh.world_.barrier("mesh");
    mesh.world_.reset_counts();
    return mesh;
  });
  std::future<Mesh> met = meet.get_future();
  std::thread(std::move(meet)).detach();
  while (met.wait_for(kLook) != std::future_status::ready) {
    const std::string lost = watch_->lost();
    TORCH_CHECK_WITH(DistBackendError, lost.empty() || met.wait_for(kLook) == std::future_status::ready, "rank ", rank,
                     " of ", world_size, " could not connect to the others: ", lost, ".");
  }
  Mesh mesh = met.get();
  if (world_size > 1) watch_->lost();  // now it knows all, should the store go first
  world_ = mesh.world_;
  tensor_ = mesh.tensor_;
  data_ = mesh.data_;
  why_not_shared_memory_ = mesh.why_not_shared_memory_;
  for (ProcessGroup* group : {&world_, &tensor_, &data_}) group->set_checks_calls(options.check_collectives);
  for (const auto& [group, index] : {std::pair{&world_, 0}, {&tensor_, 1}, {&data_, 2}}) {
    if (group->size() > 1) group->set_watch(watch_, index);
  }
}

double Mesh::communication_seconds() const {
  double seconds = 0;
  for (const ProcessGroup* group : {&tensor_, &data_, &world_}) {
    for (const auto& [site, count] : group->counts()) seconds += count.seconds;
  }
  return seconds;
}

}  // namespace optp
