#include "parallel/process_group.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>
#include <vector>

namespace optp {

struct ProcessGroup::State {
  c10::intrusive_ptr<c10d::Backend> backend;  // null in a group of one
  std::string name;
  CollectiveHook hook;
  std::map<std::string, CollectiveCount, std::less<>> counts;
};

ProcessGroup::ProcessGroup() : state_(std::make_shared<State>()) { state_->name = "single"; }

ProcessGroup::ProcessGroup(c10::intrusive_ptr<c10d::Backend> backend, std::string name)
    : state_(std::make_shared<State>()) {
  if (backend->getSize() > 1) state_->backend = std::move(backend);
  state_->name = std::move(name);
}

int64_t ProcessGroup::rank() const { return state_->backend ? state_->backend->getRank() : 0; }
int64_t ProcessGroup::size() const { return state_->backend ? state_->backend->getSize() : 1; }
const std::string& ProcessGroup::name() const { return state_->name; }
const std::map<std::string, CollectiveCount, std::less<>>& ProcessGroup::counts() const { return state_->counts; }
void ProcessGroup::reset_counts() { state_->counts.clear(); }
void ProcessGroup::set_hook(CollectiveHook hook) { state_->hook = std::move(hook); }

bool ProcessGroup::run(std::string_view operation, std::string_view site, at::Tensor& buffer,
                       const std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&)>& start) const {
  if (!state_->backend) return false;
  if (state_->hook && !state_->hook({operation, site, buffer})) return false;
  const auto begin = std::chrono::steady_clock::now();
  try {
    start(*state_->backend)->wait();
  } catch (const c10::Error& error) {
    C10_THROW_ERROR(DistBackendError, c10::str(operation, " at ", site, " failed on rank ", rank(), " of ", size(),
                                               " of the ", name(), " group: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    C10_THROW_ERROR(DistBackendError, c10::str(operation, " at ", site, " failed on rank ", rank(), " of ", size(),
                                               " of the ", name(), " group: ", error.what()));
  }
  auto entry = state_->counts.find(site);
  if (entry == state_->counts.end()) entry = state_->counts.emplace(site, CollectiveCount{}).first;
  CollectiveCount& count = entry->second;
  ++count.calls;
  count.bytes += buffer.defined() ? static_cast<int64_t>(buffer.nbytes()) : 0;
  count.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return true;
}

void ProcessGroup::all_reduce_(at::Tensor& tensor, std::string_view site, c10d::ReduceOp::RedOpType op) const {
  if (!state_->backend) return;
  at::Tensor buffer = tensor.detach().contiguous();
  run("all_reduce", site, buffer, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{buffer};
    c10d::AllreduceOptions options;
    options.reduceOp = op;
    return backend.allreduce(tensors, options);
  });
  if (!tensor.is_contiguous()) tensor.detach().copy_(buffer);
}

at::Tensor ProcessGroup::all_gather(const at::Tensor& part, int64_t dim, const ShardLayout& layout,
                                    std::string_view site) const {
  TORCH_CHECK_VALUE(layout.parts() == size() && part.size(dim) == layout.range(rank()).size, "all_gather at ", site,
                    ": ", part.size(dim), " elements of dimension ", dim, " are not the part of rank ", rank(), " of ",
                    size(), " in a layout of ", layout.total(), " over ", layout.parts(), " ranks.");
  if (!state_->backend) return part;
  // Gloo gathers equal sizes only: every rank sends the largest part, and what is beyond its own is left out below.
  const at::Tensor front = part.detach().movedim(dim, 0);
  std::vector<int64_t> shape = front.sizes().vec();
  shape[0] = layout.largest();
  at::Tensor sent = front.contiguous();
  if (front.size(0) < shape[0]) {
    sent = at::zeros(shape, front.options());
    sent.narrow(0, 0, front.size(0)).copy_(front);
  }
  shape.insert(shape.begin(), size());
  at::Tensor received = at::empty(shape, front.options());
  const bool done = run("all_gather", site, sent, [&](c10d::Backend& backend) {
    std::vector<std::vector<at::Tensor>> outputs{received.unbind(0)};
    std::vector<at::Tensor> inputs{sent};
    return backend.allgather(outputs, inputs);
  });
  if (!done) received.zero_()[rank()].copy_(sent);  // dropped: nothing came from the others
  if (layout.even()) return received.flatten(0, 1).movedim(0, dim);
  std::vector<at::Tensor> parts;
  parts.reserve(size());
  for (int64_t rank = 0; rank < size(); ++rank) parts.push_back(received[rank].narrow(0, 0, layout.range(rank).size));
  return at::cat(parts, 0).movedim(0, dim);
}

at::Tensor ProcessGroup::reduce_scatter(const at::Tensor& whole, int64_t dim, const ShardLayout& layout,
                                        std::string_view site) const {
  TORCH_CHECK_VALUE(layout.parts() == size() && whole.size(dim) == layout.total(), "reduce_scatter at ", site, ": ",
                    whole.size(dim), " elements of dimension ", dim, " do not fit a layout of ", layout.total(),
                    " over ", layout.parts(), " ranks in a group of ", size(), ".");
  // Gloo's own reduce_scatter runs one all-reduce for each rank (pytorch#149869); one for everything moves as much.
  at::Tensor sum = state_->backend ? whole.detach().clone(at::MemoryFormat::Contiguous) : whole.detach();
  run("reduce_scatter", site, sum, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{sum};
    return backend.allreduce(tensors);
  });
  const Range range = layout.range(rank());
  return sum.narrow(dim, range.start, range.size);
}

void ProcessGroup::broadcast_(at::Tensor& tensor, int64_t root, std::string_view site) const {
  if (!state_->backend) return;
  at::Tensor buffer = tensor.detach().contiguous();
  run("broadcast", site, buffer, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{buffer};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return backend.broadcast(tensors, options);
  });
  if (!tensor.is_contiguous()) tensor.detach().copy_(buffer);
}

void ProcessGroup::barrier(std::string_view site) const {
  at::Tensor nothing;
  run("barrier", site, nothing, [](c10d::Backend& backend) { return backend.barrier(); });
}

}  // namespace optp
