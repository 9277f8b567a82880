#include "parallel/process_group.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <chrono>
#include <utility>
#include <vector>

#include "parallel/collective_check.h"
#include "parallel/rank_watch.h"

namespace optp {

struct ProcessGroup::State {
  c10::intrusive_ptr<c10d::Backend> backend;  // null in a group of one
  bool shares_memory = false;
  bool checks_calls = false;
  std::string name;
  std::shared_ptr<RankWatch> watch;  // may be null
  int64_t watch_group = 0;
  CollectiveHook hook;
  std::map<std::string, CollectiveCount, std::less<>> counts;
};

namespace {

bool has_16_bits(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
}

}  // namespace

ProcessGroup::ProcessGroup() : state_(std::make_shared<State>()) { state_->name = "single"; }

ProcessGroup::ProcessGroup(c10::intrusive_ptr<c10d::Backend> backend, std::string name)
    : state_(std::make_shared<State>()) {
  state_->shares_memory = backend->getBackendName() == "shm";
  if (backend->getSize() > 1) state_->backend = std::move(backend);
  state_->name = std::move(name);
}

int64_t ProcessGroup::rank() const { return state_->backend ? state_->backend->getRank() : 0; }
int64_t ProcessGroup::size() const { return state_->backend ? state_->backend->getSize() : 1; }
std::string ProcessGroup::backend_name() const { return state_->backend ? state_->backend->getBackendName() : "none"; }
const std::string& ProcessGroup::name() const { return state_->name; }
const std::map<std::string, CollectiveCount, std::less<>>& ProcessGroup::counts() const { return state_->counts; }
void ProcessGroup::reset_counts() { state_->counts.clear(); }
void ProcessGroup::set_checks_calls(bool checks) { state_->checks_calls = checks && !state_->shares_memory; }
void ProcessGroup::set_watch(std::shared_ptr<RankWatch> watch, int64_t group) {
  state_->watch = std::move(watch);
  state_->watch_group = group;
}
void ProcessGroup::set_hook(CollectiveHook hook) { state_->hook = std::move(hook); }

void PendingCollective::wait() {
  if (const auto wait = std::exchange(wait_, nullptr)) wait();
}

double ProcessGroup::timed(std::string_view operation, std::string_view site, bool begins,
                           c10::function_ref<void()> body) const {
  RECORD_USER_SCOPE(c10::str("communication/", operation, " ", site));
  const std::shared_ptr<RankWatch>& watch = state_->watch;
  if (watch) watch->enter(state_->watch_group, operation, site, begins);
  const auto begin = std::chrono::steady_clock::now();
  const auto fail = [&](const std::string& reason) {
    C10_THROW_ERROR(DistBackendError, c10::str(operation, " at ", site, " failed on rank ", rank(), " of ", size(),
                                               " of the ", name(), " group: ", reason));
  };
  std::string reason;
  try {
    body();
    if (watch) watch->leave();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  } catch (const DisagreementError& error) {
    fail(error.what_without_backtrace());  // which explains itself
  } catch (const c10::Error& error) {
    reason = error.what_without_backtrace();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  fail(watch ? watch->explain(reason) : reason);
  return 0;
}

PendingCollective ProcessGroup::start(std::string_view operation, std::string_view site, const at::Tensor& handed_in,
                                      at::Tensor& buffer, const Launch& launch) const {
  if (!state_->backend) return {};
  if (state_->hook && !state_->hook({operation, site, buffer})) return {};
  c10::intrusive_ptr<c10d::Work> work;
  const double launching = timed(operation, site, /*begins=*/true, [&] {
    if (state_->checks_calls) {
      check_same_call(*state_->backend, buffer.defined() ? c10::str(operation, " of ", buffer.numel(), " ",
                                                                    buffer.scalar_type(), " at ", site)
                                                         : c10::str(operation, " at ", site));
    }
    work = launch(*state_->backend);
  });
  const int64_t bytes = handed_in.defined() ? static_cast<int64_t>(handed_in.nbytes()) : 0;
  return PendingCollective(
      [group = *this, work, launching, bytes, operation = std::string(operation), site = std::string(site)] {
        const double waiting = group.timed(operation, site, /*begins=*/false, [&] { work->wait(); });
        CollectiveCount& count = group.state_->counts[site];
        ++count.calls;
        count.bytes += bytes;
        count.seconds += launching + waiting;
      });
}

bool ProcessGroup::run(std::string_view operation, std::string_view site, const at::Tensor& handed_in,
                       at::Tensor& buffer, const Launch& launch) const {
  PendingCollective pending = start(operation, site, handed_in, buffer, launch);
  if (!pending.under_way()) return false;
  pending.wait();
  return true;
}

void ProcessGroup::all_reduce_(at::Tensor& tensor, std::string_view site, c10d::ReduceOp::RedOpType op) const {
  if (!state_->backend) return;
  const bool wide = op == c10d::ReduceOp::RedOpType::SUM && has_16_bits(tensor) && !state_->shares_memory;
  at::Tensor buffer = tensor.detach().to(wide ? at::kFloat : tensor.scalar_type()).contiguous();
  run("all_reduce", site, tensor, buffer, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{buffer};
    c10d::AllreduceOptions options;
    options.reduceOp = op;
    return backend.allreduce(tensors, options);
  });
  if (!buffer.is_alias_of(tensor)) tensor.detach().copy_(buffer);
}

PendingCollective ProcessGroup::start_all_reduce_(const at::Tensor& tensor, std::string_view site) const {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "all_reduce at ", site,
                    ": a collective that runs in the background needs a ", "contiguous tensor, not one with strides ",
                    tensor.strides(), "; copy it first.");
  at::Tensor buffer = tensor.detach();
  return start("all_reduce", site, tensor, buffer, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{buffer};
    return backend.allreduce(tensors);
  });
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
  const bool done = run("all_gather", site, sent, sent, [&](c10d::Backend& backend) {
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
  if (!state_->backend) return whole.detach();
  at::Tensor sent = whole.detach().movedim(dim, 0).contiguous();
  const Range range = layout.range(rank());
  if (state_->shares_memory) {
    std::vector<std::vector<at::Tensor>> inputs(1);
    for (int64_t part = 0; part < size(); ++part) {
      inputs[0].push_back(sent.narrow(0, layout.range(part).start, layout.range(part).size));
    }
    at::Tensor sum = at::empty_like(inputs[0][rank()]);
    const bool done = run("reduce_scatter", site, whole, sent, [&](c10d::Backend& backend) {
      std::vector<at::Tensor> outputs{sum};
      return backend.reduce_scatter(outputs, inputs, {});
    });
    return (done ? sum : inputs[0][rank()].clone()).movedim(0, dim);  // dropped: only its own addend
  }
  // Gloo's own reduce_scatter runs one all-reduce for each rank (pytorch#149869). Here every rank sends each other one
  // its part and adds what it received: half as much as an all-reduce moves.
  std::vector<int64_t> sent_sizes;
  for (int64_t part = 0; part < size(); ++part) sent_sizes.push_back(layout.range(part).size);
  std::vector<int64_t> received_sizes(size(), range.size);
  std::vector<int64_t> shape = sent.sizes().vec();
  shape[0] = size() * range.size;
  at::Tensor received = at::empty(shape, sent.options());
  const bool done = run("reduce_scatter", site, whole, sent, [&](c10d::Backend& backend) {
    return backend.alltoall_base(received, sent, received_sizes, sent_sizes);
  });
  if (!done) return sent.narrow(0, range.start, range.size).movedim(0, dim).clone();  // dropped: only its own addend
  const at::Tensor sum = received.unflatten(0, {size(), range.size}).sum(0);  // of 16 bits: in float32, rounded once
  return sum.movedim(0, dim);
}

void ProcessGroup::broadcast_(at::Tensor& tensor, int64_t root, std::string_view site) const {
  if (!state_->backend) return;
  at::Tensor buffer = tensor.detach().contiguous();
  run("broadcast", site, tensor, buffer, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{buffer};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return backend.broadcast(tensors, options);
  });
  if (!tensor.is_contiguous()) tensor.detach().copy_(buffer);
}

void ProcessGroup::barrier(std::string_view site) const {
  at::Tensor nothing;
  run("barrier", site, nothing, nothing, [](c10d::Backend& backend) { return backend.barrier(); });
}

}  // namespace optp
