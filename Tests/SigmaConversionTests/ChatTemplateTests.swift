import Sigma
import SigmaConversion
import Testing

/// Chat templates: evaluated as Hugging Face's renderer does it, and what is seen in them.
@Suite struct ChatTemplateTests {
    /// With the constructs of Qwen3's template.
    static let hybrid = #"""
        {%- if tools %}
            {{- '<|im_start|>system\n' }}
            {%- if messages[0].role == 'system' %}
                {{- messages[0].content + '\n\n' }}
            {%- endif %}
            {{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
            {%- for tool in tools %}
                {{- "\n" }}
                {{- tool | tojson }}
            {%- endfor %}
            {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
        {%- else %}
            {%- if messages[0].role == 'system' %}
                {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
            {%- endif %}
        {%- endif %}
        {%- set ns = namespace(searching=true, last=messages|length - 1) %}
        {%- for message in messages[::-1] %}
            {%- set index = (messages|length - 1) - loop.index0 %}
            {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
                {%- set ns.searching = false %}
                {%- set ns.last = index %}
            {%- endif %}
        {%- endfor %}
        {%- for message in messages %}
            {%- set content = message.content if message.content is string else '' %}
            {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
                {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
            {%- elif message.role == "assistant" %}
                {%- set reasoning = '' %}
                {%- if message.reasoning_content is string %}
                    {%- set reasoning = message.reasoning_content %}
                {%- else %}
                    {%- if '</think>' in content %}
                        {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
                    {%- endif %}
                {%- endif %}
                {%- if loop.index0 > ns.last and (loop.last or (not loop.last and reasoning)) %}
                    {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
                {%- else %}
                    {{- '<|im_start|>' + message.role + '\n' + content }}
                {%- endif %}
                {%- if message.tool_calls %}
                    {%- for tool_call in message.tool_calls %}
                        {%- if (loop.first and content) or (not loop.first) %}
                            {{- '\n' }}
                        {%- endif %}
                        {%- if tool_call.function %}
                            {%- set tool_call = tool_call.function %}
                        {%- endif %}
                        {{- '<tool_call>\n{"name": "' }}
                        {{- tool_call.name }}
                        {{- '", "arguments": ' }}
                        {%- if tool_call.arguments is string %}
                            {{- tool_call.arguments }}
                        {%- else %}
                            {{- tool_call.arguments | tojson }}
                        {%- endif %}
                        {{- '}\n</tool_call>' }}
                    {%- endfor %}
                {%- endif %}
                {{- '<|im_end|>\n' }}
            {%- elif message.role == "tool" %}
                {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
                    {{- '<|im_start|>user' }}
                {%- endif %}
                {{- '\n<tool_response>\n' }}
                {{- content }}
                {{- '\n</tool_response>' }}
                {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
                    {{- '<|im_end|>\n' }}
                {%- endif %}
            {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}
            {{- '<|im_start|>assistant\n' }}
            {%- if enable_thinking is defined and enable_thinking is false %}
                {{- '<think>\n\n</think>\n\n' }}
            {%- endif %}
        {%- endif %}
        """#
    /// Macros, captures, filters in loops, comments, and white space as it falls.
    private static let macros = #"""
        {% macro turn(role, text, end='<|im_end|>') %}
        <|im_start|>{{ role }}
        {{ text | trim }}{{ end }}
        {% endmacro %}
        {# a comment #}
        {% set opening %}<think>
        {% endset %}
        {% for m in messages if m['role'] != 'system' %}
          {{- turn(m['role'], m.content) -}}
        {% else %}none{% endfor %}
        {% if add_generation_prompt %}<|im_start|>assistant
        {{ opening }}{% endif %}

        """#
    private static let odds = #"""
        {%- for m in messages -%}
          {%- if loop.index is odd and not loop.first -%}{%- continue -%}{%- endif -%}
        [{{ loop.index }}/{{ loop.length }} {{ m.role|upper }} {{ m['content'][1:3] }} {{ m.content[-1] }} {{ {'a': [1, 2], "b": none}|tojson }} {{ m.missing|default('x') }} {{ (m.content ~ 1) if m.role in ['user'] else 'no' }} {{ 7 // 2 }} {{ -7 % 3 }} {{ "a" "b" }} {{ 'q' in 'pqr' and 'z' not in 'pqr' }} {{ messages|map(attribute='role')|join(', ') }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }}]
          {%- if loop.last %} end{% endif %}
        {%- endfor %}
          {% if true %}
            kept
          {% endif %}
        {{ namespace(x=1).x }}{{ none is none }}{{ x is defined }}{{ 'a,b,c'.split(',', 1) | last }}
        """#
    private static let turns: [ChatTemplate.SampleTurn] = [
        ("system", "Be."), ("user", "Hi  "), ("assistant", "<think>\nt\n</think>\n\nYo"), ("user", "Bye"),
    ]

    /// As Python's `json.dumps(text, ensure_ascii=False)`, which transformers gives templates as `tojson`.
    @Test func textIsQuotedAsPythonDoes() throws {
        let text = "a\u{1}\u{8}\u{c}\n\"\\\u{7f}\u{2028}\u{e9}\u{1f600}"
        #expect(
            try ChatTemplate.render("{{ messages[0].content|tojson }}", [("user", text)])
                == #""a\u0001\b\f\n\"\\"# + "\u{7f}\u{2028}\u{e9}\u{1f600}\"")
    }

    /// The expected texts are jinja2's, with the settings of Hugging Face's renderer.
    @Test func asJinjaDoes() throws {
        let prompt =
            "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi  <|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
            + "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        #expect(try ChatTemplate.render(Self.hybrid, Self.turns) == prompt)
        #expect(try ChatTemplate.render(Self.hybrid, Self.turns, thinks: true) == prompt)
        #expect(
            try ChatTemplate.render(Self.hybrid, Self.turns, thinks: false) == prompt + "<think>\n\n</think>\n\n")
        #expect(
            try ChatTemplate.render(Self.macros, Self.turns)
                == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\nt\n</think>\n\nYo<|im_end|>\n"
                + "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n<think>\n")
        let json = #"{"a": [1, 2], "b": null}"#
        let rest = "3 2 ab True system, user, assistant, user 2]"
        #expect(
            try ChatTemplate.render(Self.odds, Self.turns)
                == "[1/4 SYSTEM e. . \(json) x no \(rest)[2/4 USER i    \(json) x Hi  1 \(rest)"
                + "[4/4 USER ye e \(json) x Bye1 \(rest) end    kept\n1TrueFalseb,c")
    }

    /// Where a beginning of what is looked for comes before it, or it overlaps itself. The expected text is jinja2's.
    @Test func partsOfTexts() throws {
        let template =
            "{{ 'aaabaaab'|replace('aab', 'x') }} {{ 'ababac'.split('abac')|length }} {{ 'aaa' in 'aabaaa' }} {{ 'aba' in 'abb' }} {{ 'aaaaa'|replace('aa', 'b') }} {{ 'é1é2é'.split('é', 1)|join('|') }}"
        #expect(try ChatTemplate.render(template, Self.turns) == "axax 2 True False bba |1é2é")
    }

    private static func chatml(_ opening: String) -> String {
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{%- endfor %}"
            + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n\(opening)' }}{%- endif %}"
    }
    private static func see(_ template: String, bos: String = "") -> ChatTemplate { ChatTemplate(template, bos: bos) }

    @Test func whatOpensThinking() {
        for (opening, isOurs) in [("<think>\\n", true), ("<think>", false), ("\\n<think>\\n\\n", false)] {
            let seen = Self.see(Self.chatml(opening))
            #expect(seen.style == .chatml && seen.opensThinking == true && seen.thinks)
            #expect(seen.differences.isEmpty == isOurs, "\(seen)")
        }
        // By what it does, whatever its words: a variable, a macro, a switch, text outside of expressions.
        for end in [
            "{% set t = '<thi' + 'nk>' %}{{ t }}", "{% macro o() %}<think>{% endmacro %}{{ o() }}",
            "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}",
            "{{ '<think>' if enable_thinking | default(true) else '' }}",
        ] {
            let seen = Self.see(Self.chatml("") + end)
            #expect(seen.opensThinking == true && seen.thinks, "\(end): \(seen)")
        }
        let hybrid = Self.see(Self.hybrid)
        #expect(hybrid.style == .chatml && hybrid.opensThinking == false && hybrid.thinks && hybrid.differences.isEmpty)
        let plain = Self.see(Self.chatml(""))
        #expect(plain.opensThinking == false && !plain.thinks && plain.differences.isEmpty && plain.obstacle == nil)
        // Thinking in a history alone is no opening.
        let history = Self.see("{% if messages|length > 9 %}<think>{% endif %}" + Self.chatml(""))
        #expect(history.opensThinking == false && history.thinks)
    }

    @Test func otherMarkup() {
        let sigma =
            "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        let seen = Self.see(sigma + "<|assistant|><think>", bos: "<s>")
        #expect(seen.style == .sigma && seen.opensThinking == true && seen.differences.isEmpty)
        // With line ends it is another one.
        let phi = "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
        #expect(Self.see(phi).style == nil && Self.see(phi + "<|user|>").mentionedStyle == .sigma)
        let llama = Self.see("{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}")
        #expect(llama.style == nil && llama.mentionedStyle == nil && llama.obstacle == nil)
    }

    @Test func differencesAreSeen() {
        let system = Self.see(
            "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Q.<|im_end|>\n{% endif %}"
                + Self.chatml(""))
        #expect(system.style == .chatml && system.differences.isEmpty && system.defaultSystem == "You are Q.")
        // SmolLM2's bos is <|im_start|>.
        let own = Self.see(
            "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Q.<|im_end|>\n{% endif %}"
                + Self.chatml(""), bos: "<|im_start|>")
        #expect(own.differences.isEmpty && own.defaultSystem == "You are Q.")
        #expect(Self.see("[gMASK]" + Self.chatml("")).differences.count == 1)
        let strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + Self.chatml("")
        #expect(Self.see(strict).differences == ["it does not take a system prompt"])
        let merging = Self.chatml("").replacing(
            "'<|im_start|>' + m.role", with: "'<|im_start|>' + m.role|replace('system', 'user')")
        #expect(Self.see(merging).differences.count == 1)
    }

    @Test func datesAreSeen() throws {
        let system = "{% if messages[0].role != 'system' %}<|im_start|>system\nIt is DATE.<|im_end|>\n{% endif %}"
        func seen(_ date: String) -> ChatTemplate { Self.see(system.replacing("DATE", with: date) + Self.chatml("")) }
        let today = seen("{{ strftime_now('%d %b %Y') }}")
        #expect(today.date == "%d %b %Y" && today.defaultSystem == "It is {{date}}." && today.differences.isEmpty)
        let fixed = seen("{{ date_string if date_string is defined else '100 % 2024' }}")
        #expect(fixed.date == "100 %% 2024" && fixed.defaultSystem == today.defaultSystem && fixed.differences.isEmpty)
        let either = seen(
            "{{ date_string if date_string is defined else strftime_now('%A') if strftime_now is defined else 'x' }}")
        #expect(either.date == "%A" && either.differences.isEmpty)
        #expect(seen("today").date.isEmpty && seen("today").defaultSystem == "It is today.")
        #expect(seen("{{ strftime_now('%Q') }}").obstacle != nil)
        #expect(seen("{{ strftime_now('%d') }} or {{ strftime_now('%m') }}").differences.count == 1)
        let format = try #require(today.format)
        let day = CalendarDate(year: 2031, month: 2, day: 3)
        #expect(format.dated("It is {{date}}.", on: day) == "It is 03 Feb 2031.")
    }

    @Test func closedThinkingIsSeen() {
        let off = "{% if enable_thinking is defined and not enable_thinking %}OFF{% else %}<think>\n{% endif %}"
        func seen(_ text: String) -> ChatTemplate { Self.see(Self.chatml("") + off.replacing("OFF", with: text)) }
        #expect(seen("<think>\n</think>").closedThinking == "<think>\n</think>")
        #expect(seen("<think>\n</think>").differences.isEmpty)
        #expect(seen("<think>\n\n</think>\n\n").closedThinking == nil)
        #expect(seen("<think>\n\n</think>\n\n").differences.isEmpty)
        #expect(!seen("I think not.").differences.isEmpty)
    }

    @Test(arguments: [
        "{% if %}", "{% if a %}", "{% endif %}", "{{ a", "{% for x in %}{% endfor %}", "{{ 'a }}", "{# a", "{{ a.b( }}",
        "{% unknown %}", "{{ a|unknown }}", "{{ a is unknown }}", "{{ f() }}", "{{ 'a' + 1 }}", "{{ 1 // 0 }}",
        "{{ raise_exception('no') }}", "{{ [1][::0] }}", "{% set a.b = 1 %}", "{{ a ! b }}", "{{ \u{1} }}",
        "{% for a, b in messages %}{% endfor %}", "{% include 'x' %}", "{{ -('-9223372036854775808'|int) }}",
        "{{ ('-9223372036854775808'|int) is divisibleby(-1) }}",
    ]) func whatCannotBeEvaluated(_ text: String) {
        #expect(Self.see("<|im_start|>" + text).obstacle != nil)
        #expect(Self.see("<|im_start|>" + text).mentionedStyle == .chatml)
    }

    /// Templates are strangers' programs: none takes long, much memory or the stack.
    @Test(
        .timeLimit(.minutes(1)),
        arguments: [
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
            "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
            "{% set ns = namespace(x='aa') %}{% for a in range(99) %}{% set ns.x = ns.x|replace('a', ns.x) %}{% endfor %}",
            "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
            String(repeating: "{% if true %}", count: 5000), "{{ " + String(repeating: "(", count: 5000),
            "{{ " + String(repeating: "not ", count: 5000) + "a }}", "{{ " + String(repeating: "[", count: 5000),
            "{{ " + String(repeating: "-", count: 5000) + "1 }}",
            "{{ a" + String(repeating: "|trim", count: 5000) + " }}",
            "{{ a" + String(repeating: ".b", count: 5000) + " }}",
            "{{ 1" + String(repeating: "+1", count: 5000) + " }}",
            String(repeating: "a", count: 1 << 19),
            "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for a in range(15) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{% for a in range(99) %}{{ (ns.x[:250000] ~ 'b') in ns.x }}{% endfor %}",
        ]) func costsAreBounded(_ text: String)
    {
        #expect(Self.see(text).obstacle != nil)
    }
}
