#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "parallel/agreement.h"
#include "src/checkpoint/checkpoint_tensors.h"
#include "src/checkpoint/crc64.h"
#include "src/checkpoint/safetensors_header.h"

namespace optp {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVerifySite = "checkpoint verification";

// Bytes [begin, end) of a file.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - begin; }
};

// Not through a mapping: an error of the disk is then a sentence and not a signal.
uint64_t checksum_of(int descriptor, const fs::path& path, ByteRange range) {
  constexpr size_t kPiece = size_t{1} << 20;
  std::string buffer(std::min<uint64_t>(kPiece, range.size()), '\0');
  uint64_t checksum = 0;
  while (range.size() > 0) {
    const ssize_t got = ::pread(descriptor, buffer.data(), std::min<uint64_t>(buffer.size(), range.size()),
                                static_cast<off_t>(range.begin));
    if (got < 0 && errno == EINTR) continue;
    TORCH_CHECK_VALUE(got >= 0, "cannot read ", path.string(), ": ", std::system_category().message(errno), ".");
    TORCH_CHECK_VALUE(got > 0, "cannot read ", path.string(), ": it ends at byte ", range.begin, ", too early.");
    checksum = crc64({buffer.data(), static_cast<size_t>(got)}, checksum);
    range.begin += static_cast<uint64_t>(got);
  }
  return checksum;
}

// With all threads of this rank, each a part.
uint64_t parallel_checksum(const fs::path& path, ByteRange range) {
  if (range.size() == 0) return 0;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  TORCH_CHECK_VALUE(descriptor >= 0, "cannot open ", path.string(), ": ", std::system_category().message(errno), ".");
  constexpr uint64_t kSmallestPart = uint64_t{4} << 20;
  const auto parts = static_cast<int64_t>(
      std::clamp<uint64_t>(range.size() / kSmallestPart, 1, static_cast<uint64_t>(at::get_num_threads())));
  const auto part = [&](int64_t i) {
    return ByteRange{range.begin + range.size() / parts * i,
                     i + 1 == parts ? range.end : range.begin + range.size() / parts * (i + 1)};
  };
  std::vector<uint64_t> checksums(parts);
  try {
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) checksums[i] = checksum_of(descriptor, path, part(i));
    });
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
  uint64_t checksum = 0;
  for (int64_t i = 0; i < parts; ++i) checksum = combine_crc64(checksum, checksums[i], part(i).size());
  return checksum;
}

}  // namespace

void verify_checksums(const fs::path& folder, const std::vector<CheckpointManifest::File>& files, const Mesh& mesh) {
  // The files one after the other, cut into as many equal shares as there are ranks. Shares are dealt out by tensor
  // rank: at the degree that wrote the files each rank verifies just about what it goes on to read.
  const ProcessGroup& world = mesh.world();
  const int64_t ranks = world.size();
  uint64_t total = 0;
  for (const CheckpointManifest::File& file : files) total += file.size;
  const auto share_start = [&](int64_t share) { return total / ranks * share + total % ranks * share / ranks; };
  // What `share` has of the file that starts at byte `position` of all files.
  const auto range_of = [&](int64_t share, uint64_t position, uint64_t size) {
    const auto within = [&](uint64_t at) { return std::clamp(at, position, position + size) - position; };
    return ByteRange{within(share_start(share)), within(share_start(share + 1))};
  };
  const int64_t mine = mesh.tensor().rank() * mesh.data().size() + mesh.data().rank();
  const auto count = static_cast<int64_t>(files.size());
  at::Tensor sums = at::zeros({ranks, count}, at::kLong);
  run_on_all(world, kVerifySite, [&] {
    uint64_t position = 0;
    for (int64_t i = 0; i < count; ++i) {
      sums[mine][i] =
          static_cast<int64_t>(parallel_checksum(folder / files[i].name, range_of(mine, position, files[i].size)));
      position += files[i].size;
    }
  });
  world.all_reduce_(sums, kVerifySite);  // every rank has filled one row
  uint64_t position = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t checksum = 0;
    for (int64_t share = 0; share < ranks; ++share) {
      checksum = combine_crc64(checksum, static_cast<uint64_t>(sums[share][i].item<int64_t>()),
                               range_of(share, position, files[i].size).size());
    }
    TORCH_CHECK_VALUE(checksum == files[i].crc64, (folder / files[i].name).string(), " was altered, or belongs to ",
                      "another checkpoint: its checksum is ", crc64_text(checksum), ", but ", kCheckpointManifestName,
                      " says ", crc64_text(files[i].crc64), ".");
    position += files[i].size;
  }
}

}  // namespace optp
