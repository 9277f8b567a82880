#include "src/data/token_file.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "src/data/xxh64.h"
#include "src/progress.h"

namespace optp {
namespace {

// Calls `take` with each id. They are copied out, since they may lie at any address.
template <typename Id, typename Take>
void for_ids(const char* bytes, size_t count, const Take& take) {
  for (size_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, bytes + i * sizeof(Id), sizeof(Id));
    take(id);
  }
}

}  // namespace

TokenFile::TokenFile(std::filesystem::path path, std::filesystem::path text)
    : file_(std::move(path)), text_(std::move(text)), header_(parse_npy_header(file_.bytes(), file_.path().string())) {}

at::Tensor TokenFile::read(int64_t first, int64_t count) const {
  check_range(first, count);
  at::Tensor ids = at::empty({count}, at::kLong);
  read(first, count, ids.mutable_data_ptr<int64_t>());
  return ids;
}

void TokenFile::read(int64_t first, int64_t count, int64_t* out) const {
  check_range(first, count);
  const char* bytes = file_.bytes().data() + header_.data + static_cast<size_t>(first) * header_.item_size;
  const auto put = [&](auto id) { *out++ = static_cast<int64_t>(id); };
  if (header_.item_size == 2) {
    for_ids<uint16_t>(bytes, static_cast<size_t>(count), put);
  } else {
    for_ids<uint32_t>(bytes, static_cast<size_t>(count), put);
  }
}

void TokenFile::check_range(int64_t first, int64_t count) const {
  TORCH_CHECK_INDEX(first >= 0 && count >= 0 && first <= size() && count <= size() - first, count, " ids from ", first,
                    " on do not lie in ", name().string(), ", which has ", size(), ".");
}

const TokenFile::Content& TokenFile::content() const {
  if (content_) return *content_;
  constexpr size_t kBlock = size_t{1} << 18;  // stays in the cache between its two uses
  std::string_view rest = file_.bytes().substr(header_.data);
  const auto total = static_cast<int64_t>(rest.size());
  Progress progress("read " + name().filename().string(), total, "bytes");
  Xxh64 hash;
  uint32_t largest = 0;
  while (!rest.empty()) {
    const std::string_view block = rest.substr(0, kBlock);
    hash.update(block);
    const size_t count = block.size() / header_.item_size;
    const auto keep = [&](uint32_t id) { largest = std::max(largest, id); };
    header_.item_size == 2 ? for_ids<uint16_t>(block.data(), count, keep)
                           : for_ids<uint32_t>(block.data(), count, keep);
    rest.remove_prefix(block.size());
    progress.update(total - static_cast<int64_t>(rest.size()));
  }
  content_ = Content{size() > 0 ? int64_t{largest} : -1, hash.digest()};
  return *content_;
}

}  // namespace optp
