/// The parts of a small tokenizer.json, each replaceable.
struct TokenizerParts {
    var vocabulary = #"{"a":0,"b":1,"Ġ":2,"ab":3,"Ġab":4,"Ã":5,"©":6}"#
    var merges = #"["a b",["Ġ","ab"]]"#
    var added = #"[{"id":7,"content":"<|endoftext|>","special":true},{"id":8,"content":"<tool>","special":false}]"#
    var normalizer = "null"
    var preTokenizer = #"{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}"#
    var postProcessor = "null"
    var modelExtra = ""

    var text: String {
        """
        {"version":"1.0","added_tokens":\(added),"normalizer":\(normalizer),"pre_tokenizer":\(preTokenizer),
        "post_processor":\(postProcessor),"decoder":{"type":"ByteLevel"},
        "model":{"type":"BPE","dropout":null,"vocab":\(vocabulary),"merges":\(merges)\(modelExtra)}}
        """
    }

    /// Added tokens with the markup of Sigma.
    static let markup =
        #"[{"id":7,"content":"<|endoftext|>","special":true},{"id":8,"content":"<|system|>","special":true},{"id":9,"content":"<|user|>","special":true},{"id":10,"content":"<|assistant|>","special":true},{"id":11,"content":"<|end|>","special":true}]"#
}
