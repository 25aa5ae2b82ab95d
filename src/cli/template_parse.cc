#include <cctype>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cli/template_ast.h"

namespace kelp::cli::detail {
namespace {

struct Token {
  enum class Kind {
    end,       // of the action
    word,      // identifier, keyword, true, false, nil
    field,     // .Name (text = Name)
    dot,       // .
    variable,  // $x (text = "$x")
    literal,
    open,
    close,
    bar,
    declare,  // :=
    assign,   // =
    comma,
  } kind = Kind::end;
  size_t at = 0;
  bool after_space = false;
  std::string text;
  Json literal;
};

bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Cuts one action (the text between {{ and }}) into tokens.
class Lexer {
 public:
  Lexer(std::string_view text, size_t begin, size_t end) : text_(text), at_(begin), end_(end) {}

  std::vector<Token> all() {
    std::vector<Token> tokens;
    for (;;) {
      tokens.push_back(next());
      if (tokens.back().kind == Token::Kind::end) return tokens;
    }
  }

 private:
  Token next() {
    Token token;
    const size_t before = at_;
    while (at_ < end_ && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    token.after_space = at_ > before;
    token.at = at_;
    if (at_ >= end_) return token;
    const char c = text_[at_];
    switch (c) {
      case '(':
        return single(token, Token::Kind::open);
      case ')':
        return single(token, Token::Kind::close);
      case '|':
        return single(token, Token::Kind::bar);
      case ',':
        return single(token, Token::Kind::comma);
      case '=':
        return single(token, Token::Kind::assign);
      case '"':
        return string(token);
      case '`':
        return raw_string(token);
      case '\'':
        return character(token);
      case '.':
        return field(token);
      case '$':
        return variable(token);
      default:
        break;
    }
    if (c == ':' && at_ + 1 < end_ && text_[at_ + 1] == '=') {
      at_ += 2;
      token.kind = Token::Kind::declare;
      return token;
    }
    if (std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '+') return number(token);
    if (is_word_char(c)) {
      while (at_ < end_ && is_word_char(text_[at_])) token.text += text_[at_++];
      token.kind = Token::Kind::word;
      return token;
    }
    template_error(at_, fmt::format("unexpected {}", kelp::quoted(text_.substr(at_, 1))));
  }

  Token single(Token& token, Token::Kind kind) {
    ++at_;
    token.kind = kind;
    return token;
  }

  Token field(Token& token) {
    ++at_;
    if (at_ < end_ && std::isdigit(static_cast<unsigned char>(text_[at_])) != 0) {
      --at_;
      return number(token);
    }
    while (at_ < end_ && is_word_char(text_[at_])) token.text += text_[at_++];
    token.kind = token.text.empty() ? Token::Kind::dot : Token::Kind::field;
    return token;
  }

  Token variable(Token& token) {
    token.text += text_[at_++];
    while (at_ < end_ && is_word_char(text_[at_])) token.text += text_[at_++];
    token.kind = Token::Kind::variable;
    return token;
  }

  Token number(Token& token) {
    std::string digits;
    while (at_ < end_ && (is_word_char(text_[at_]) || text_[at_] == '.' || text_[at_] == '-' || text_[at_] == '+')) {
      if (text_[at_] != '_') digits += text_[at_];  // 1_000
      ++at_;
    }
    token.kind = Token::Kind::literal;
    if (auto whole = to_int(digits[0] == '+' ? std::string_view(digits).substr(1) : digits)) {
      token.literal = *whole;
      return token;
    }
    char* end = nullptr;
    const double value = std::strtod(digits.c_str(), &end);
    if (*end != '\0') template_error(token.at, fmt::format("{} is not a number", kelp::quoted(digits)));
    token.literal = value;
    return token;
  }

  void append_escape(std::string& out) {
    const size_t start = at_ - 1;
    if (at_ >= end_) template_error(start, "the text ends in a backslash");
    const char c = text_[at_++];
    switch (c) {
      case 'a':
        out += '\a';
        return;
      case 'b':
        out += '\b';
        return;
      case 'f':
        out += '\f';
        return;
      case 'n':
        out += '\n';
        return;
      case 'r':
        out += '\r';
        return;
      case 't':
        out += '\t';
        return;
      case 'v':
        out += '\v';
        return;
      case '\\':
      case '\'':
      case '"':
        out += c;
        return;
      case 'x':
        append_code(out, start, 2);
        return;
      case 'u':
        append_code(out, start, 4);
        return;
      case 'U':
        append_code(out, start, 8);
        return;
      default:
        template_error(start, fmt::format("unknown escape {}", kelp::quoted(text_.substr(start, 2))));
    }
  }

  void append_code(std::string& out, size_t start, size_t digits) {
    unsigned long code = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      if (at_ >= end_ || std::isxdigit(static_cast<unsigned char>(text_[at_])) == 0) {
        template_error(start, fmt::format("this escape needs {} hex digits", digits));
      }
      const char c = static_cast<char>(std::tolower(static_cast<unsigned char>(text_[at_])));
      code = code * 16 + static_cast<unsigned long>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    const auto byte = [&out](unsigned long value) { out += static_cast<char>(value); };
    if (digits == 2 || code < 0x80) {
      byte(code);
    } else if (code < 0x800) {
      byte(0xc0 | (code >> 6)), byte(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      byte(0xe0 | (code >> 12)), byte(0x80 | ((code >> 6) & 0x3f)), byte(0x80 | (code & 0x3f));
    } else if (code < 0x110000) {
      byte(0xf0 | (code >> 18)), byte(0x80 | ((code >> 12) & 0x3f));
      byte(0x80 | ((code >> 6) & 0x3f)), byte(0x80 | (code & 0x3f));
    } else {
      template_error(start, "this is beyond Unicode");
    }
  }

  Token string(Token& token) {
    std::string out;
    ++at_;
    while (at_ < end_ && text_[at_] != '"') {
      const char c = text_[at_++];
      if (c == '\\') {
        append_escape(out);
      } else {
        out += c;
      }
    }
    if (at_ >= end_) template_error(token.at, "this string is not closed");
    ++at_;
    token.kind = Token::Kind::literal;
    token.literal = out;
    return token;
  }

  Token raw_string(Token& token) {
    const size_t close = text_.find('`', at_ + 1);
    if (close == std::string_view::npos || close >= end_) template_error(at_, "this raw string is not closed");
    token.kind = Token::Kind::literal;
    token.literal = std::string(text_.substr(at_ + 1, close - at_ - 1));
    at_ = close + 1;
    return token;
  }

  Token character(Token& token) {
    std::string out;
    ++at_;
    while (at_ < end_ && text_[at_] != '\'') {
      const char c = text_[at_++];
      if (c == '\\') {
        append_escape(out);
      } else {
        out += c;
      }
    }
    if (at_ >= end_ || out.empty()) template_error(token.at, "this character is not closed");
    ++at_;
    token.kind = Token::Kind::literal;
    token.literal = static_cast<unsigned char>(out[0]);
    return token;
  }

  std::string_view text_;
  size_t at_, end_;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::unique_ptr<TemplateList> parse() {
    auto root = parse_list(false);
    if (!stop_.empty()) template_error(stop_at_, fmt::format("{{{{{}}}}} without a block that it ends", stop_));
    return root;
  }

 private:
  /// Up to the end of the text, or an {{end}} / {{else}}, which is left in stop_.
  std::unique_ptr<TemplateList> parse_list(bool inside, size_t opened_at = 0) {
    auto list = std::make_unique<TemplateList>();
    stop_.clear();
    for (;;) {
      if (!next_action(*list)) {
        if (inside) template_error(opened_at, "this block has no {{end}}");
        return list;
      }
      if (peek().kind == Token::Kind::end) continue;  // a comment
      const size_t at = peek().at;
      const std::string word = peek().kind == Token::Kind::word ? peek().text : "";
      if (word == "end" || word == "else") {
        stop_ = word;
        stop_at_ = at;
        take();
        return list;
      }
      list->nodes.push_back(parse_action(word, at));
    }
  }

  /// Appends the text before the next action to `list` and cuts that action into tokens_.
  bool next_action(TemplateList& list) {
    const size_t open = text_.find("{{", at_);
    std::string text(text_.substr(at_, open == std::string_view::npos ? open : open - at_));
    if (trim_next_)
      text.erase(
          0, text.find_first_not_of(" \t\r\n") == std::string::npos ? text.size() : text.find_first_not_of(" \t\r\n"));
    trim_next_ = false;
    size_t begin = open + 2;
    const bool trim_before = open != std::string_view::npos && begin + 1 < text_.size() && text_[begin] == '-' &&
                             std::isspace(static_cast<unsigned char>(text_[begin + 1])) != 0;
    if (trim_before) {
      const size_t last = text.find_last_not_of(" \t\r\n");
      text.erase(last == std::string::npos ? 0 : last + 1);
      ++begin;
    }
    if (!text.empty()) {
      TemplateNode node;
      node.text = unescape_format(text);
      list.nodes.push_back(std::move(node));
    }
    if (open == std::string_view::npos) return false;
    size_t end = find_close(open, begin);
    at_ = end + 2;
    if (end > begin && text_[end - 1] == '-' && end - 1 > begin &&
        std::isspace(static_cast<unsigned char>(text_[end - 2])) != 0) {
      trim_next_ = true;
      --end;
    }
    tokens_.clear();
    next_ = 0;
    const std::string_view inside = trim(text_.substr(begin, end - begin));
    if (starts_with(inside, "/*")) {
      if (!ends_with(inside, "*/")) template_error(open, "this comment is not closed");
      tokens_.emplace_back();
      return true;
    }
    tokens_ = Lexer(text_, begin, end).all();
    if (tokens_.size() == 1) template_error(open, "this action is empty");
    return true;
  }

  /// The place of the }} that closes an action: not inside a string or comment.
  size_t find_close(size_t open, size_t from) const {
    if (starts_with(trim(text_.substr(from)), "/*")) {
      const size_t close = text_.find("*/", from);
      const size_t end = close == std::string_view::npos ? close : text_.find("}}", close);
      if (end == std::string_view::npos) template_error(open, "this comment is not closed");
      return end;
    }
    for (size_t i = from; i + 1 < text_.size(); ++i) {
      const char c = text_[i];
      if (c == '"' || c == '\'' || c == '`') {
        size_t j = i + 1;
        while (j < text_.size() && text_[j] != c) j += static_cast<size_t>(text_[j] == '\\' && c != '`' ? 2 : 1);
        if (j >= text_.size()) template_error(i, "this string is not closed");
        i = j;
      } else if (c == '}' && text_[i + 1] == '}') {
        return i;
      }
    }
    template_error(open, "this action has no }}");
  }

  TemplateNode parse_action(const std::string& word, size_t at) {
    TemplateNode node;
    node.at = at;
    if (word == "if" || word == "with" || word == "range") {
      take();
      return parse_block(word, at);
    }
    if (word == "break" || word == "continue") {
      take();
      if (loops_ == 0) template_error(at, fmt::format("{{{{{}}}}} outside of {{{{range}}}}", word));
      node.kind = word == "break" ? TemplateNode::Kind::break_ : TemplateNode::Kind::continue_;
      expect_end();
      return node;
    }
    if (word == "define" || word == "template" || word == "block") {
      template_error(at, fmt::format("{{{{{}}}}} is not available here", word));
    }
    node.kind = TemplateNode::Kind::print;
    node.pipe = parse_pipe(1);
    expect_end();
    return node;
  }

  TemplateNode parse_block(const std::string& word, size_t at) {
    TemplateNode node;
    node.at = at;
    node.kind = word == "if"     ? TemplateNode::Kind::if_
                : word == "with" ? TemplateNode::Kind::with
                                 : TemplateNode::Kind::range;
    node.pipe = parse_pipe(word == "range" ? 2 : 1);
    expect_end();
    if (word == "range") ++loops_;
    node.body = parse_list(true, at);
    if (word == "range") --loops_;
    if (stop_ == "else") {
      if (peek().kind == Token::Kind::word && (peek().text == "if" || peek().text == "with")) {
        const std::string inner = take().text;  // {{else if x}} is {{else}}{{if x}} with one {{end}} for both
        node.otherwise = std::make_unique<TemplateList>();
        node.otherwise->nodes.push_back(parse_block(inner, at));
        return node;
      }
      expect_end();
      node.otherwise = parse_list(true, at);
      if (stop_ == "else") template_error(stop_at_, "a second {{else}}");
    }
    expect_end();
    stop_.clear();
    return node;
  }

  TemplatePipe parse_pipe(size_t max_variables) {
    TemplatePipe pipe;
    parse_variables(pipe, max_variables);
    for (;;) {
      pipe.commands.push_back(parse_command());
      if (peek().kind != Token::Kind::bar) return pipe;
      take();
    }
  }

  void parse_variables(TemplatePipe& pipe, size_t max_variables) {
    const auto kind = [&](size_t ahead) {
      return next_ + ahead < tokens_.size() ? tokens_[next_ + ahead].kind : Token::Kind::end;
    };
    if (kind(0) != Token::Kind::variable) return;
    size_t count = 0;
    if (kind(1) == Token::Kind::declare || kind(1) == Token::Kind::assign) count = 1;
    if (kind(1) == Token::Kind::comma && kind(2) == Token::Kind::variable) count = 2;
    if (count == 0) return;
    if (count > max_variables) template_error(peek().at, "two variables are for {{range}} only");
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) take();
      pipe.variables.push_back(take().text);
    }
    const Token& sign = take();
    if (sign.kind != Token::Kind::declare && sign.kind != Token::Kind::assign) template_error(sign.at, "expected :=");
    pipe.declares = sign.kind == Token::Kind::declare;
  }

  TemplateCommand parse_command() {
    TemplateCommand command;
    for (;;) {
      const Token::Kind kind = peek().kind;
      if (kind == Token::Kind::end || kind == Token::Kind::bar || kind == Token::Kind::close) break;
      command.operands.push_back(parse_operand());
    }
    if (command.operands.empty()) template_error(peek().at, "a value is missing here");
    return command;
  }

  TemplateOperand parse_operand() {
    using Kind = TemplateOperand::Kind;
    const Token token = take();
    TemplateOperand operand;
    operand.at = token.at;
    switch (token.kind) {
      case Token::Kind::dot:
        operand.kind = Kind::dot;
        return operand;
      case Token::Kind::field:
        operand.kind = Kind::field;
        operand.fields.push_back(token.text);
        break;
      case Token::Kind::variable:
        operand.kind = Kind::variable;
        operand.name = token.text;
        break;
      case Token::Kind::literal:
        operand.kind = Kind::literal;
        operand.literal = std::make_shared<const Json>(token.literal);
        return operand;
      case Token::Kind::word:
        return word_operand(token);
      case Token::Kind::open:
        operand.kind = Kind::pipe;
        operand.pipe = std::make_unique<TemplatePipe>(parse_pipe(0));
        if (peek().kind != Token::Kind::close) template_error(token.at, "this ( is not closed");
        take();
        break;
      default:
        template_error(token.at, "unexpected here");
    }
    while (peek().kind == Token::Kind::field && !peek().after_space) operand.fields.push_back(take().text);
    return operand;
  }

  static TemplateOperand word_operand(const Token& token) {
    TemplateOperand operand;
    operand.at = token.at;
    operand.kind = TemplateOperand::Kind::literal;
    if (token.text == "true" || token.text == "false") {
      operand.literal = std::make_shared<const Json>(token.text == "true");
    } else if (token.text == "nil") {
      operand.literal = std::make_shared<const Json>();
    } else {
      operand.kind = TemplateOperand::Kind::function;
      operand.name = token.text;
    }
    return operand;
  }

  void expect_end() {
    if (peek().kind != Token::Kind::end) template_error(peek().at, "unexpected here");
  }
  [[nodiscard]] const Token& peek() const { return tokens_[next_]; }
  const Token& take() { return tokens_[next_ + 1 < tokens_.size() ? next_++ : next_]; }

  std::string_view text_;
  size_t at_ = 0;
  bool trim_next_ = false;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  int loops_ = 0;
  std::string stop_;
  size_t stop_at_ = 0;
};

}  // namespace

void template_error(size_t at, std::string_view message) { throw_usage("template, character {}: {}", at + 1, message); }

std::unique_ptr<TemplateList> parse_template(std::string_view text) { return Parser(text).parse(); }

}  // namespace kelp::cli::detail
