// Event files that TensorBoard reads, written without TensorFlow.
//
// A file is a row of TFRecords (tensorflow/core/lib/io/record_writer.h): length, its checksum, an Event, its checksum.
// An Event is a protocol buffer (tensorflow/core/util/event.proto, framework/summary.proto), of which a scalar needs
// few fields.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/train/append_file.h"

namespace optp {

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `data`.
uint32_t crc32c(std::string_view data);

/// One event file, in a folder that may hold those of earlier runs of the same training.
class TensorBoardWriter {
 public:
  /// Starts a file in `folder`, which is made if need be. `first_step`: events of this step and later ones that earlier
  /// files hold are void (a resumed run writes them anew), and TensorBoard hides them.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step);

  /// Adds scalars of a step, by their tags ("train/loss").
  void add_scalars(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

 private:
  void write(const std::string& event);

  AppendFile file_;
};

}  // namespace optp
