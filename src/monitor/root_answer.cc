#include "monitor/root_answer.h"

#include <cstring>

namespace kelp::monitor {

std::string good_answer(std::string_view text) { return "k" + std::string(text); }

std::string bad_answer(const Error& error) {
  const int code = error.exit_code();
  std::string answer = "e";
  answer.append(reinterpret_cast<const char*>(&code), sizeof code);
  return answer.append(error.message()).append(1, '\0').append(error.hint());
}

std::string read_answer(std::string_view answer) {
  if (!answer.empty() && answer.front() == 'k') return std::string(answer.substr(1));
  int code = kExitFailure;
  if (answer.size() < 1 + sizeof code) throw_error("a child process was killed");
  std::memcpy(&code, answer.data() + 1, sizeof code);
  const std::string_view rest = answer.substr(1 + sizeof code);
  const auto end = rest.find('\0');
  Error error(std::string(rest.substr(0, end)), code);
  if (end != std::string_view::npos) error.with_hint(std::string(rest.substr(end + 1)));
  throw error;
}

}  // namespace kelp::monitor
