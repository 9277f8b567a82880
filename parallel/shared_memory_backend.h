// Collectives between the ranks of one host through memory that they share: a c10d backend, as ProcessGroupGloo is one.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/shared_memory_peers.h"
#include "parallel/shared_memory_region.h"

namespace optp {

/// all_reduce, all_gather, reduce_scatter, broadcast and barrier on contiguous CPU tensors, one tensor a call. Tensors
/// of any size pass through two places of a fixed size that each rank has in the memory (`kPlaceBytes`).
///
/// Sums are taken in the order of the ranks, bfloat16 and float16 in float32 and rounded once: the same bits on every
/// rank and in every run. Reductions: SUM, MAX and MIN of float32, float64, bfloat16, float16, int32 and int64; what is
/// only moved may have any type. A call does its work before it returns. Ranks that do not make the same call (the
/// operation, type, size, root) get an error that says what each of them does.
///
/// Ranks may be threads of one process. Errors are c10::DistBackendError, and end the group's use (SharedPeers).
class SharedMemoryBackend final : public c10d::Backend {
 public:
  static constexpr int64_t kPlaceBytes = int64_t{256} << 10;

  /// Connects the ranks that share `store`. All get a backend, or none and `why_not` says why, the same on every rank:
  /// one of them runs on another host, or memory cannot be shared. `timeout`: the longest wait for another rank.
  static c10::intrusive_ptr<SharedMemoryBackend> open(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank,
                                                      int64_t size, std::chrono::milliseconds timeout,
                                                      std::string& why_not);

  SharedMemoryBackend(SharedMemoryRegion region, int64_t rank, int64_t size, std::chrono::milliseconds timeout);

  const std::string getBackendName() const override { return "shm"; }  // NOLINT(readability-const-return-type)

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override;
  /// Inputs of the same size on all ranks.
  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs,
                                           const c10d::AllgatherOptions& options) override;
  /// Rank r gets the reduction of everybody's inputs[0][r]; their sizes may differ.
  c10::intrusive_ptr<c10d::Work> reduce_scatter(std::vector<at::Tensor>& outputs,
                                                std::vector<std::vector<at::Tensor>>& inputs,
                                                const c10d::ReduceScatterOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions& options) override;

 private:
  // The place that `rank` writes before the next step, or has written before it.
  std::byte* place(int64_t rank, uint32_t parity) const;
  void reduce_whole(std::byte* data, int64_t count, const SharedCall& whole);
  void reduce_in_ranges(std::byte* data, int64_t count, const SharedCall& whole);

  SharedMemoryRegion region_;
  SharedPeers peers_;
};

}  // namespace optp
