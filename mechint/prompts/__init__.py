"""Prompts: where they come from, how they are read and written, and their tokens under one tokenizer."""

from mechint.prompts.corpora import from_dataset as from_dataset
from mechint.prompts.corpora import natural as natural
from mechint.prompts.corpora import texts as texts
from mechint.prompts.encoding import Encoded as Encoded
from mechint.prompts.encoding import Tokenizer as Tokenizer
from mechint.prompts.encoding import encode as encode
from mechint.prompts.encoding import token_of as token_of
from mechint.prompts.encoding import tokenize as tokenize
from mechint.prompts.files import read as read
from mechint.prompts.files import write as write
from mechint.prompts.ioi import ioi as ioi
from mechint.prompts.ioi import single_token_names as single_token_names
from mechint.prompts.prompt import Prompt as Prompt
from mechint.prompts.prompt import PromptSet as PromptSet
from mechint.prompts.repeated import RepeatedTokens as RepeatedTokens
from mechint.prompts.repeated import repeated_tokens as repeated_tokens
