#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

/// What a child of kelp's that does a piece of work says at its end, over a pipe: 'k' and a text, or 'e', the exit code
/// (an int of this machine), the message, NUL and the hint. No answer at all: the child was killed. The monitor reads
/// one, that of the child which makes the root file system beside it; kelp reads all others.
namespace kelp::monitor {

std::string good_answer(std::string_view text);
std::string bad_answer(const Error& error);

/// The text of a good answer. throws  the Error of a bad one, with its exit code and hint
std::string read_answer(std::string_view answer);

}  // namespace kelp::monitor
