#include "runtime/commands/print.h"

#include <unistd.h>

#include "sys/lock.h"

namespace kelp::runtime {

void print(std::string_view text) { sys::write_all(STDOUT_FILENO, text, "standard output"); }

}  // namespace kelp::runtime
