#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include <fmt/format.h>

#include "base/duration_size.h"
#include "base/text.h"
#include "cli/output.h"

namespace kelp::cli {
namespace {

void write_error_stream(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // progress that cannot be shown must not stop the transfer
    text.remove_prefix(static_cast<size_t>(written));
  }
}

size_t terminal_width() noexcept {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}
size_t terminal_height() noexcept {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) return 24;
  return size.ws_row;
}

std::int64_t now_ms() noexcept {
  using std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now().time_since_epoch()).count();
}

std::string short_id(const std::string& id) {
  const size_t colon = id.find(':');
  return id.substr(colon == std::string::npos ? 0 : colon + 1, 12);
}

}  // namespace

ProgressView::ProgressView(bool quiet) : quiet_(quiet), terminal_(!quiet && stderr_is_terminal()) {}

engine::ProgressFn ProgressView::callback() {
  if (quiet_) return {};
  return [this](const engine::ProgressEvent& event) { show(event); };
}

ProgressView::Bar& ProgressView::bar_of(const std::string& id) {
  for (Bar& bar : bars_) {
    if (bar.id == id) return bar;
  }
  return bars_.emplace_back(Bar{id, "waiting", 0, 0});
}

void ProgressView::show(const engine::ProgressEvent& event) {
  if (quiet_) return;
  if (event.kind == "status") {
    if (terminal_ && drawn_ > 0) {
      draw();
      finish();
    }
    write_error_stream(printable(event.text) + "\n");
    return;
  }
  Bar& bar = bar_of(event.id);
  const std::string before = bar.state;
  if (event.total != 0) bar.total = event.total;
  if (event.kind == "layer") {
    bar.state = event.text.empty() ? "waiting" : event.text;
  } else if (event.kind == "bytes") {
    bar.state = "fetching";
    bar.current = event.current;
  } else if (event.kind == "unpack") {
    bar.state = "unpacking";
    bar.current = bar.total;
  } else if (event.kind == "done" || event.kind == "unpacked") {
    bar.state = "done";
    bar.current = bar.total;
  }
  if (terminal_) {
    const bool changed = before != bar.state;
    if (changed || now_ms() - last_draw_ms_ >= 50) draw();
    return;
  }
  if (event.kind == "done") write_error_stream(fmt::format("Copied blob {}\n", short_id(event.id)));
  if (event.kind == "layer" && !event.text.empty()) {
    write_error_stream(fmt::format("Blob {} {}\n", short_id(event.id), printable(event.text)));
  }
}

std::string ProgressView::line_of(const Bar& bar, size_t width) const {
  std::string text = fmt::format("{}  {:<10}", short_id(bar.id), printable(bar.state));
  if (bar.total != 0 && bar.state != "already exists") {
    constexpr size_t kCells = 24;
    const double part = std::min(1.0, static_cast<double>(bar.current) / static_cast<double>(bar.total));
    const auto full = static_cast<size_t>(part * kCells);
    text += fmt::format("  [{}{}]  {} / {}", std::string(full, '='), std::string(kCells - full, ' '),
                        human_size(bar.current), human_size(bar.total));
  } else if (bar.current != 0) {
    text += "  " + human_size(bar.current);  // how much will come was not said
  }
  return text.substr(0, width);
}

void ProgressView::draw() {
  const size_t width = terminal_width() - 1;
  // More layers than the screen has lines: the last ones, since the cursor cannot go up beyond the top.
  const size_t shown = std::min(bars_.size(), std::max<size_t>(terminal_height(), 2) - 1);
  std::string out;
  if (drawn_ > 0) out += fmt::format("\x1b[{}A", drawn_);
  for (size_t i = bars_.size() - shown; i < bars_.size(); ++i) out += "\r\x1b[2K" + line_of(bars_[i], width) + "\n";
  drawn_ = shown;
  last_draw_ms_ = now_ms();
  write_error_stream(out);
}

void ProgressView::finish() noexcept {
  if (terminal_ && drawn_ > 0) {
    try {
      draw();
    } catch (...) {  // only the last frame of a picture is lost
    }
  }
  drawn_ = 0;
  bars_.clear();
}

}  // namespace kelp::cli
