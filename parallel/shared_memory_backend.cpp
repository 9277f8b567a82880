#include "parallel/shared_memory_backend.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

#include "parallel/shared_memory_sum.h"

namespace optp {
namespace {

// Of two ranks each reads the other's part and its own: no less than when each adds half and hands it over. With more
// ranks, and where there is enough to share, each adds a range.
constexpr int64_t kWorthRanges = int64_t{32} << 10;

size_t region_bytes(int64_t size) {
  return static_cast<size_t>(size) * (sizeof(SharedRankState) + 2 * SharedMemoryBackend::kPlaceBytes);
}

class FinishedWork : public c10d::Work {
 public:
  FinishedWork() { finish(); }
};

// `from` + `offset` may lie behind the end of a tensor of which nothing is left to copy.
void copy_bytes(std::byte* to, const std::byte* from, int64_t offset, int64_t size) {
  if (size > 0) std::memcpy(to, from + offset, size);
}

c10::intrusive_ptr<c10d::Work> finished() { return c10::make_intrusive<FinishedWork>(); }

std::byte* bytes_of(const at::Tensor& tensor) { return static_cast<std::byte*>(tensor.mutable_data_ptr()); }

SharedCall call_of(SharedCall::Operation operation, const at::Tensor& tensor, int64_t detail) {
  return {.operation = operation,
          .dtype = static_cast<int32_t>(tensor.scalar_type()),
          .detail = static_cast<int32_t>(detail),
          .count = tensor.numel()};
}

void check_tensor(const char* operation, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.is_cpu() && tensor.is_contiguous(), operation,
                    " over shared memory takes a contiguous tensor on the CPU; copy it first.");
}

void check_reduction(const char* operation, const at::Tensor& tensor, c10d::ReduceOp::RedOpType op) {
  check_tensor(operation, tensor);
  TORCH_CHECK_VALUE(can_reduce(tensor.scalar_type(), op), operation, " over shared memory cannot reduce ",
                    tensor.scalar_type(), " in this way; use a sum, maximum or minimum of numbers that train.");
}

c10d::ReduceOp::RedOpType reduction_of(const SharedCall& call) {
  return static_cast<c10d::ReduceOp::RedOpType>(call.detail);
}

int64_t element_bytes(const SharedCall& call) {
  return static_cast<int64_t>(c10::elementSize(static_cast<c10::ScalarType>(call.dtype)));
}

}  // namespace

c10::intrusive_ptr<SharedMemoryBackend> SharedMemoryBackend::open(const c10::intrusive_ptr<c10d::Store>& store,
                                                                  int64_t rank, int64_t size,
                                                                  std::chrono::milliseconds timeout,
                                                                  std::string& why_not) {
  auto region = SharedMemoryRegion::open(*store, rank, size, region_bytes(size), why_not);
  if (!region) return nullptr;
  return c10::make_intrusive<SharedMemoryBackend>(std::move(*region), rank, size, timeout);
}

SharedMemoryBackend::SharedMemoryBackend(SharedMemoryRegion region, int64_t rank, int64_t size,
                                         std::chrono::milliseconds timeout)
    : Backend(static_cast<int>(rank), static_cast<int>(size)),
      region_(std::move(region)),
      peers_(reinterpret_cast<SharedRankState*>(region_.data()), rank, size, timeout) {}

std::byte* SharedMemoryBackend::place(int64_t rank, uint32_t parity) const {
  return region_.data() + getSize() * static_cast<int64_t>(sizeof(SharedRankState)) + (2 * rank + parity) * kPlaceBytes;
}

c10::intrusive_ptr<c10d::Work> SharedMemoryBackend::allreduce(std::vector<at::Tensor>& tensors,
                                                              const c10d::AllreduceOptions& options) {
  const at::Tensor& tensor = tensors.at(0);
  const c10d::ReduceOp::RedOpType op = options.reduceOp;
  check_reduction("all_reduce", tensor, op);
  const SharedCall call = call_of(SharedCall::kAllReduce, tensor, op);
  const bool in_ranges = getSize() > 2 && static_cast<int64_t>(tensor.nbytes()) >= kWorthRanges;
  if (in_ranges) {
    reduce_in_ranges(bytes_of(tensor), tensor.numel(), call);
  } else {
    reduce_whole(bytes_of(tensor), tensor.numel(), call);
  }
  return finished();
}

// Every rank adds everything.
void SharedMemoryBackend::reduce_whole(std::byte* data, int64_t count, const SharedCall& whole) {
  const int64_t element = element_bytes(whole), most = kPlaceBytes / element;
  SharedCall call = whole;
  std::vector<const std::byte*> sources(getSize());
  for (int64_t begin = 0; begin == 0 || begin < count; begin += most, ++call.part) {
    const int64_t size = std::min(most, count - begin);
    std::byte* part = data + begin * element;
    const uint32_t parity = peers_.parity();
    copy_bytes(place(getRank(), parity), part, 0, size * element);
    peers_.meet(call);
    for (int64_t rank = 0; rank < getSize(); ++rank) sources[rank] = place(rank, parity);
    reduce_sources(part, sources, size, static_cast<c10::ScalarType>(call.dtype), reduction_of(call));
  }
}

// Every rank adds a range of each part; in a second step all take the others' sums.
void SharedMemoryBackend::reduce_in_ranges(std::byte* data, int64_t count, const SharedCall& whole) {
  const int64_t element = element_bytes(whole), most = kPlaceBytes / element;
  SharedCall call = whole;
  std::vector<const std::byte*> sources(getSize());
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t size = std::min(most, count - begin);
    std::byte* part = data + begin * element;
    const auto start_of = [&](int64_t rank) { return size * rank / getSize(); };
    const int64_t start = start_of(getRank()), length = start_of(getRank() + 1) - start;
    uint32_t parity = peers_.parity();
    copy_bytes(place(getRank(), parity), part, 0, size * element);
    peers_.meet(call);
    ++call.part;
    for (int64_t rank = 0; rank < getSize(); ++rank) sources[rank] = place(rank, parity) + start * element;
    parity = peers_.parity();
    reduce_sources(place(getRank(), parity), sources, length, static_cast<c10::ScalarType>(call.dtype),
                   reduction_of(call));
    peers_.meet(call);
    ++call.part;
    for (int64_t rank = 0; rank < getSize(); ++rank) {
      std::memcpy(part + start_of(rank) * element, place(rank, parity),
                  (start_of(rank + 1) - start_of(rank)) * element);
    }
  }
}

c10::intrusive_ptr<c10d::Work> SharedMemoryBackend::allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                                              std::vector<at::Tensor>& inputs,
                                                              const c10d::AllgatherOptions& /*options*/) {
  const at::Tensor& input = inputs.at(0);
  check_tensor("all_gather", input);
  for (const at::Tensor& output : outputs.at(0)) {
    check_tensor("all_gather", output);
    TORCH_CHECK_VALUE(output.nbytes() == input.nbytes(), "all_gather over shared memory needs parts of one size.");
  }
  SharedCall call = call_of(SharedCall::kAllGather, input, 0);
  const auto bytes = static_cast<int64_t>(input.nbytes());
  for (int64_t begin = 0; begin == 0 || begin < bytes; begin += kPlaceBytes, ++call.part) {
    const int64_t size = std::min(kPlaceBytes, bytes - begin);
    const uint32_t parity = peers_.parity();
    copy_bytes(place(getRank(), parity), bytes_of(input), begin, size);
    peers_.meet(call);
    for (int64_t rank = 0; rank < getSize(); ++rank) {
      copy_bytes(bytes_of(outputs[0][rank]) + begin, place(rank, parity), 0, size);
    }
  }
  return finished();
}

c10::intrusive_ptr<c10d::Work> SharedMemoryBackend::reduce_scatter(std::vector<at::Tensor>& outputs,
                                                                   std::vector<std::vector<at::Tensor>>& inputs,
                                                                   const c10d::ReduceScatterOptions& options) {
  const std::vector<at::Tensor>& parts = inputs.at(0);
  const at::Tensor& output = outputs.at(0);
  const c10d::ReduceOp::RedOpType op = options.reduceOp;
  check_reduction("reduce_scatter", output, op);
  SharedCall call = call_of(SharedCall::kReduceScatter, output, op);
  call.count = 0;
  int64_t largest = 0;
  for (const at::Tensor& part : parts) {
    check_tensor("reduce_scatter", part);
    call.count += part.numel();
    largest = std::max(largest, part.numel());
  }
  // A place holds a piece of every rank's part.
  const int64_t element = element_bytes(call), most = kPlaceBytes / element / getSize();
  std::vector<const std::byte*> sources(getSize());
  const auto length_of = [&](int64_t rank, int64_t begin) {
    return std::clamp<int64_t>(parts[rank].numel() - begin, 0, most);
  };
  for (int64_t begin = 0; begin == 0 || begin < largest; begin += most, ++call.part) {
    const uint32_t parity = peers_.parity();
    for (int64_t rank = 0; rank < getSize(); ++rank) {
      copy_bytes(place(getRank(), parity) + rank * most * element, bytes_of(parts[rank]), begin * element,
                 length_of(rank, begin) * element);
    }
    peers_.meet(call);
    for (int64_t rank = 0; rank < getSize(); ++rank) sources[rank] = place(rank, parity) + getRank() * most * element;
    const int64_t length = length_of(getRank(), begin);
    if (length > 0) reduce_sources(bytes_of(output) + begin * element, sources, length, output.scalar_type(), op);
  }
  return finished();
}

c10::intrusive_ptr<c10d::Work> SharedMemoryBackend::broadcast(std::vector<at::Tensor>& tensors,
                                                              const c10d::BroadcastOptions& options) {
  const at::Tensor& tensor = tensors.at(0);
  check_tensor("broadcast", tensor);
  SharedCall call = call_of(SharedCall::kBroadcast, tensor, options.rootRank);
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  for (int64_t begin = 0; begin == 0 || begin < bytes; begin += kPlaceBytes, ++call.part) {
    const int64_t size = std::min(kPlaceBytes, bytes - begin);
    const uint32_t parity = peers_.parity();
    if (getRank() == options.rootRank) copy_bytes(place(getRank(), parity), bytes_of(tensor), begin, size);
    peers_.meet(call);
    if (getRank() != options.rootRank) copy_bytes(bytes_of(tensor) + begin, place(options.rootRank, parity), 0, size);
  }
  return finished();
}

c10::intrusive_ptr<c10d::Work> SharedMemoryBackend::barrier(const c10d::BarrierOptions& /*options*/) {
  peers_.meet({.operation = SharedCall::kBarrier});
  return finished();
}

}  // namespace optp
