// The options that every command on a model shares, and what they turn into: a model, a mesh, threads.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "src/checkpoint/model_source.h"
#include "src/log.h"
#include "src/status_signal.h"

namespace CLI {
class App;
}

namespace optp::cli {

struct CommonOptions {
  std::string model;
  std::optional<int64_t> vocab_size, hidden_size, num_layers, num_heads, ffn_dim, max_positions;
  int64_t tp = 1;
  int64_t dp = 1;       // commands that take --dp call add_dp_option
  int64_t threads = 0;  // 0: this host's cores divided by its ranks
  std::string dtype = "float32";
  std::optional<std::string> weights;  // as dtype; commands that take --weights call add_weights_option
  std::string products = "auto";
  uint64_t seed = 0;
  std::string comm = "auto";
  bool check_collectives = false;
  double timeout = 600;
  std::string interface;
  std::string log_level = "info";
  bool quiet = false;
  std::string json;
};

/// Adds them to `command`. `dtypes`: what --dtype may be. Defaults are those that `options` holds.
void add_common_options(CLI::App& command, CommonOptions& options, const std::vector<std::string>& dtypes);

/// Its parts, for commands that take no model by that name: --vocab-size, --hidden-size and so on; --log-level, --quiet
/// and --config.
void add_preset_options(CLI::App& command, CommonOptions& options);
void add_log_options(CLI::App& command, CommonOptions& options);

/// Adds --dp, for commands whose work several copies of the model can share.
void add_dp_option(CLI::App& command, CommonOptions& options);

/// Adds --weights, for commands that use a model and do not train it.
void add_weights_option(CLI::App& command, CommonOptions& options);

/// The model that the options name, with the preset changed as they say. Throws c10::ValueError.
ModelSource model_of(const CommonOptions& options);

at::ScalarType dtype_of(const std::string& name);

/// What --weights names, else --dtype. Throws c10::ValueError if the two contradict each other.
at::ScalarType weights_of(const CommonOptions& options);

/// The level that --log-level names; --quiet alone is "warn".
LogLevel log_level_of(const std::string& name, bool quiet);

/// How a process takes part in a run.
struct Participation {
  std::optional<int> exit_status;  ///< set: this process has started the ranks, and all have ended
  Mesh mesh;                       ///< otherwise: this process is a rank of it
  std::unique_ptr<StatusSignal> status_signal = nullptr;  ///< and answers SIGUSR1
};

/// Joins the world that the environment describes or, without one and with tp x dp > 1, starts the ranks on this host.
/// Sets the threads and the log of this rank. Call it before anything starts threads; `arguments` are the program's
/// own.
Participation join(const CommonOptions& options, const std::vector<std::string>& arguments);

/// Writes `text` to `path` whole or not at all.
void write_file(const std::string& path, const std::string& text);

}  // namespace optp::cli
