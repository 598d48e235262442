"""The reference agent: speaks NanoClaw's v1 container contract exactly, and does what its prompt says.

It stands where the real agent image would: same stdin, same markers, same files, same habits
when it is asked to end. It needs no model, no key and nothing but the standard library, so it
shares no code with the controller it is used to test. Not here: any intelligence.
"""
