#include "parallel/mesh.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <exception>

#include "parallel/shared_memory_backend.h"

namespace optp {
namespace {

using BackendPtr = c10::intrusive_ptr<c10d::Backend>;

BackendPtr open_gloo(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                     const Mesh::Options& mesh) {
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
  world_ = connect(store, "world", rank, world_size, options, why_not_shared_memory_);
  tensor_ = connect(store, c10::str("tensor/", rank / tp), rank % tp, tp, options, why_not_shared_memory_);
  data_ = connect(store, c10::str("data/", rank % tp), rank / tp, dp, options, why_not_shared_memory_);
  // The store may end with rank 0's use of it, and some ranks may still be meeting each other there.
  world_.barrier("mesh");
  world_.reset_counts();
  for (ProcessGroup* group : {&world_, &tensor_, &data_}) group->set_checks_calls(options.check_collectives);
}

double Mesh::communication_seconds() const {
  double seconds = 0;
  for (const ProcessGroup* group : {&tensor_, &data_, &world_}) {
    for (const auto& [site, count] : group->counts()) seconds += count.seconds;
  }
  return seconds;
}

}  // namespace optp
