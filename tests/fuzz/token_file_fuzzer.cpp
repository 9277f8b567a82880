// A token file: what its header says is there, the ids are those that lie in the file, and they stay the same when they
// are written again.
#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "src/data/token_file.h"
#include "src/data/token_writer.h"
#include "src/data/xxh64.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

using Ids = std::vector<int64_t>;

// The ids byte by byte.
Ids ids_in(std::string_view data, size_t item_size) {
  Ids ids(data.size() / item_size);
  for (size_t i = 0; i < data.size(); ++i) {
    ids[i / item_size] |= int64_t{static_cast<unsigned char>(data[i])} << 8 * (i % item_size);
  }
  return ids;
}

Ids read_ids(const TokenFile& file, int64_t first, int64_t count) {
  const at::Tensor ids = file.read(first, count);
  return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()};
}

void check_reading(const TokenFile& file, const Ids& ids) {
  const int64_t size = file.size();
  expect(size == static_cast<int64_t>(ids.size()) && read_ids(file, 0, size) == ids);
  for (const int64_t first : {int64_t{0}, size / 2, size}) {
    const int64_t count = std::min<int64_t>(3, size - first);
    expect(read_ids(file, first, count) == Ids(ids.begin() + first, ids.begin() + first + count));
  }
  for (const auto& [first, count] :
       {std::pair<int64_t, int64_t>{0, size + 1}, {size, 1}, {-1, 1}, {INT64_MAX, 1}, {1, INT64_MAX}, {0, -1}}) {
    bool refused = false;
    try {
      Ids room(1);
      file.read(first, count, room.data());
    } catch (const c10::IndexError&) {
      refused = true;
    }
    expect(refused);
  }
  expect(file.largest_id() == (ids.empty() ? -1 : *std::max_element(ids.begin(), ids.end())));
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const optp::FuzzFolder folder;
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const optp::TokenFile file(folder.write("tokens.npy", bytes));
    const optp::NpyHeader header = optp::parse_npy_header(bytes, "tokens.npy");
    optp::expect(header.item_size == 2 || header.item_size == 4);
    const std::string_view stored = bytes.substr(header.data);
    optp::expect(stored.size() == header.item_size * static_cast<size_t>(header.count));
    const optp::Ids ids = optp::ids_in(stored, header.item_size);
    optp::check_reading(file, ids);
    optp::expect(file.hash() == optp::xxh64(stored));

    optp::TokenWriter writer(folder.path() / "again.npy", int64_t{1} << 8 * header.item_size);
    writer.write(ids);
    writer.commit();
    const std::filesystem::path again = folder.path() / "again.npy";
    optp::expect(optp::read_file(again) == optp::npy_header(header.item_size, header.count) + std::string(stored));
    optp::expect(optp::read_ids(optp::TokenFile(again), 0, header.count) == ids);
  });
}
