/// The formats that are enforced, as expressions for the whole text.
///
/// Each is the format's definition or a part of it: never more. Unknown formats are annotations.
enum FormatLanguage {
    static func pattern(_ name: String) -> String? {
        switch name {
        case "date": date
        case "time": time
        case "date-time": date + "[Tt]" + time
        case "duration": duration
        case "email", "idn-email": email
        case "hostname", "idn-hostname": hostname
        case "ipv4": ipv4
        case "ipv6": ipv6
        case "uri": scheme + "(?:" + authority + "|" + absolutePath + "|" + rootlessPath + ")?" + queryFragment
        case "uri-reference", "iri-reference":
            "(?:" + scheme + "(?:" + authority + "|" + absolutePath + "|" + rootlessPath + ")?|" + authority + "|"
                + absolutePath + "|" + relativePath + ")?" + queryFragment
        case "iri": pattern("uri")
        case "uri-template": uriTemplate
        case "uuid": "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
        case "json-pointer": jsonPointer
        case "relative-json-pointer": "(?:0|[1-9][0-9]*)(?:#|" + jsonPointer + ")"
        case "regex": regex
        default: nil
        }
    }

    /// What a match of the pattern must not contain.
    static func exclusion(_ name: String) -> String? {
        switch name {
        // Labels with hyphens in the third and fourth place are punycode, which has rules of its own.
        case "hostname", "idn-hostname": "(?:^|\\.)[^.][^.]--|.{254}"
        default: nil
        }
    }

    /// Where the pattern is only a part of the format: what covers all of it.
    static func widerPattern(_ name: String) -> String? {
        switch name {
        case "time": wideTime
        case "date-time": date + "[Tt]" + wideTime
        case "hostname": hostname
        case "email", "idn-email": "[^]*@[^]*"
        case "idn-hostname", "iri", "iri-reference", "uri-template", "regex": "[^]*"
        default: nil
        }
    }

    /// With leap seconds at any time.
    private static let wideTime =
        "(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

    static let base64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

    private static let leapYear =
        "(?:[0-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
    private static let date =
        "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
        + "|02-(?:0[1-9]|1[0-9]|2[0-8]))|" + leapYear + "-02-29)"
    /// Leap seconds only where the time is UTC.
    private static let time =
        "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
        + "|23:59:60(?:\\.[0-9]+)?(?:[Zz]|[+-]00:00))"
    private static let duration =
        "P(?:[0-9]+W|(?:[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?)(?:T" + durationTime + ")?|T"
        + durationTime + ")"
    private static let durationTime = "(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"

    private static let label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    private static let hostname = label + "(?:\\." + label + ")*"
    private static let atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    private static let email =
        "(?:" + atom + "(?:\\." + atom + ")*|\"(?:[ !#-\\[\\]-~]|\\\\[ -~])*\")@(?:" + hostname + "|\\[" + ipv4
        + "\\]|\\[IPv6:" + ipv6 + "\\])"

    private static let octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    private static let ipv4 = octet + "(?:\\." + octet + "){3}"
    private static let hex = "[0-9A-Fa-f]{1,4}"
    private static let ipv6: String = {
        // RFC 3986: groups before "::", and what may follow it.
        let last = "(?:" + hex + ":" + hex + "|" + ipv4 + ")"
        var forms = ["(?:" + hex + ":){6}" + last, "::(?:" + hex + ":){5}" + last]
        for before in 1...5 {
            forms.append(
                "(?:" + hex + "(?::" + hex + "){0,\(before - 1)})?::(?:" + hex + ":){\(5 - before)}" + last)
        }
        forms.append("(?:" + hex + "(?::" + hex + "){0,5})?::" + hex)
        forms.append("(?:" + hex + "(?::" + hex + "){0,6})?::")
        return "(?:" + forms.joined(separator: "|") + ")"
    }()

    private static let percent = "%[0-9A-Fa-f]{2}"
    private static let unit = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|" + percent + ")"
    private static let scheme = "[A-Za-z][A-Za-z0-9+.-]*:"
    private static let authority =
        "//(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|" + percent + ")*@)?(?:\\[(?:" + ipv6
        + "|v[0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|" + percent
        + ")*)(?::[0-9]*)?(?:/" + unit + "*)*"
    private static let absolutePath = "/(?:" + unit + "+(?:/" + unit + "*)*)?"
    private static let rootlessPath = unit + "+(?:/" + unit + "*)*"
    private static let relativePath =
        "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|" + percent + ")+(?:/" + unit + "*)*"
    private static let queryFragment = "(?:\\?(?:" + unit + "|[/?])*)?(?:#(?:" + unit + "|[/?])*)?"

    private static let variable = "(?:[A-Za-z0-9_]|" + percent + ")(?:\\.?(?:[A-Za-z0-9_]|" + percent + "))*"
    private static let uriTemplate =
        "(?:[!#$&(-;=?-\\[\\]_a-z~]|" + percent + "|\\{[+#./;?&]?" + variable + "(?::[1-9][0-9]{0,3}|\\*)?(?:,"
        + variable + "(?::[1-9][0-9]{0,3}|\\*)?)*\\})*"
    private static let jsonPointer = "(?:/(?:[^~/]|~[01])*)*"

    /// A part of ECMA-262's expressions: one level of groups, plain classes, no assertions but anchors.
    private static let regex: String = {
        let single = "(?:[A-Za-z0-9 _,:;'\"<>=!@#%&~/`-]|\\.|\\\\[dDwWsSnrtfv.*+?^$|()\\[\\]{}\\\\/])"
        let members = "(?:[A-Za-z0-9 _.,;]|[a-y]-z|[A-Y]-Z|[0-8]-9|\\\\[dDwWsSnrt.\\\\\\]\\[/])+"
        let one = "(?:" + single + "|\\[\\^?" + members + "\\])(?:[*+?]\\??|\\{[0-9]\\})?"
        let group = "\\((?:\\?:)?(?:" + one + ")*(?:\\|(?:" + one + ")*)*\\)[*+?]?"
        let sequence = "\\^?(?:" + one + "|" + group + ")*\\$?"
        return sequence + "(?:\\|" + sequence + ")*"
    }()
}
