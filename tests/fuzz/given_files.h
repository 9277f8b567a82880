// read_text_file (src/checkpoint/model_source.h) without files: it hands out what a fuzzer has put here. It is linked
// in place of model_source.cpp, which would bring the whole engine along.
#pragma once

#include <map>
#include <string>

namespace optp {

/// Path -> content.
extern std::map<std::string, std::string> given_files;

}  // namespace optp
