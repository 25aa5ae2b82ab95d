#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/option_set.h"
#include "store/layout.h"

namespace kelp::cli {

/// What TAB may put in place of the word under the cursor.
struct Candidate {
  std::string text;  ///< the whole word; one that ends with / = : or , goes on
  std::string help;  ///< shown beside it where the shell can, "" = nothing
};

/// The candidates for the last of the words after the program's name, which may be empty.
std::vector<Candidate> complete(const Strings& words);

/// The values of one kind that begin with `begin`; only directories and small files are read, no records.
std::vector<Candidate> complete_value(Complete kind, const std::string& begin, const store::Layout& layout);

}  // namespace kelp::cli
