"""What a battery of introspection asks: texts, questions about what was injected while they were read, and labels."""

from mechint.prompts.introspection.english import English as English
from mechint.prompts.introspection.material import Asked as Asked
from mechint.prompts.introspection.material import Example as Example
from mechint.prompts.introspection.material import Material as Material
