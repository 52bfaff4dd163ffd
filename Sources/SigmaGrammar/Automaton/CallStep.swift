/// How threads read calls of functions, and what stands around them.
extension Automaton {
    /// The first call has none before it to be separated from.
    static func firstCall(_ calls: Grammar.Calls) -> Thread {
        calls.opening.isEmpty
            ? Thread(.rootValue, operand: calls.value, value: calls.value)
            : Thread(.callOpening, operand: 1, value: calls.value)
    }

    /// Passes on the threads after `byte`.
    func stepInCall(_ thread: Thread, _ byte: UInt8, _ yield: (Thread) -> Void) {
        guard let calls = grammar.calls else { return }
        switch thread.kind {
        case .callOpening: open(thread, byte, calls, yield)
        case .callClosing:
            if Int(thread.operand) < calls.closing.count {
                if calls.closing[Int(thread.operand)] == byte { yield(thread.advanced()) }
            } else if calls.allowsSeveral {
                open(Thread(.callOpening, value: thread.value), byte, calls, yield)
            }
        case .functionName: functionName(thread, byte, calls.functions, yield)
        case .parameterTag:
            guard ParameterLists.tag[Int(thread.operand)] == byte else { return }
            if Int(thread.operand) + 1 < ParameterLists.tag.count {
                yield(thread.advanced())
            } else {
                startParameter(thread.site, yield)
            }
        case .parameterName:
            name(thread, byte, yield) { site, value in startValue(value, site, calls.functions, yield) }
        case .parameterKey:
            guard let next = arena.advance(thread, by: byte) else { return }
            if next.pending == .none, arena.isNullable(next.operand) {
                startValue(thread.value, thread.site, calls.functions, yield)
            } else {
                yield(next)
            }
        case .parameterText:
            guard let next = arena.advance(thread, by: byte) else { return }
            if next.pending == .none, arena.isNullable(next.operand) {
                startLine(thread.site, yield)
            } else {
                yield(next)
            }
        case .parameterEnd:
            guard ParameterLists.end[Int(thread.operand)] == byte else { return }
            if Int(thread.operand) + 1 < ParameterLists.end.count {
                yield(thread.advanced())
            } else {
                startLine(thread.site, yield)
            }
        default: break
        }
    }

    private func open(_ thread: Thread, _ byte: UInt8, _ calls: Grammar.Calls, _ yield: (Thread) -> Void) {
        guard calls.opening[Int(thread.operand)] == byte else { return }
        guard Int(thread.operand) + 1 == calls.opening.count else { return yield(thread.advanced()) }
        if calls.form == .taggedXML {
            var names = Thread(.functionName)
            names.high = UInt32(calls.functions.spellings.count)
            yield(names)
        } else {
            yield(Thread(.rootValue, operand: thread.value, value: thread.value))
        }
    }

    /// As members' names are read.
    private func functionName(
        _ thread: Thread, _ byte: UInt8, _ functions: ParameterLists, _ yield: (Thread) -> Void
    ) {
        let depth = Int(thread.operand)
        let low = Self.bound(functions.spellings, thread, depth, Int(byte))
        let high = Self.bound(functions.spellings, thread, depth, Int(byte) + 1)
        guard low < high else { return }
        if functions.spellings[low].count == depth + 1 {
            for rule in functions.rules[low] {
                startLine(sites.number(ObjectSite(rule: rule, position: 0)), yield)
            }
            return
        }
        var next = thread.advanced()
        next.low = UInt32(low)
        next.high = UInt32(high)
        yield(next)
    }

    /// Another parameter, or the end of the call.
    private func startLine(_ site: Int32, _ yield: (Thread) -> Void) {
        let choices = sites.choices(ofObject: site, in: grammar.objects)
        if choices.hasNames || !choices.free.isEmpty { yield(Thread(.parameterTag, site: site)) }
        if choices.canClose { yield(Thread(.callClosing)) }
    }

    private func startParameter(_ site: Int32, _ yield: (Thread) -> Void) {
        if let names = names(at: site, .parameterName) { yield(names) }
        for free in sites.choices(ofObject: site, in: grammar.objects).free {
            let keys = arena.and(free.keys, unnamedKeys(sites.objects[Int(site)].rule))
            yield(key(free, arena.concat(keys, arena.literal(ParameterLists.nameEnd)), .parameterKey, .raw))
        }
    }

    private func startValue(_ value: Int32, _ site: Int32, _ functions: ParameterLists, _ yield: (Thread) -> Void) {
        guard let value = functions.values[value] else { return }
        if value.nested >= 0 { yield(Thread(.parameterValue, site: site, operand: value.nested)) }
        guard value.text != RegexArena.empty else { return }
        var text = Thread.text(.parameterText, value.text, .raw)
        text.site = site
        yield(text)
    }
}

extension Thread {
    /// One byte further in a text that is known.
    fileprivate func advanced() -> Thread {
        var next = self
        next.operand += 1
        return next
    }
}
